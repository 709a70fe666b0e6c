"""JSON and TOML of others: what is wrong with it is a ValueError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dim.documents import parse_json, parse_toml


def test_documents_are_parsed() -> None:
    assert parse_json('{"a": [1, "é"]}') == parse_json('{"a": [1, "é"]}'.encode()) == {"a": [1, "é"]}
    assert parse_toml('a = [1, "é"]') == {"a": [1, "é"]}


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a = " + "[" * 100_000, "a = " + "9" * 5_000, "9" * 5_000, "{"]
)
def test_texts_of_other_kinds(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff\xff"')
