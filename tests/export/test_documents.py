"""Rooms and figures that export/README.md and docs/export.md state; tests/docs/facts.py holds node counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model

TOP = Path(__file__).parents[2]


def _stated(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, f"the document has no sentence {pattern!r}"
    return list(map(int, found.groups()))


def test_every_room_is_listed() -> None:
    package = TOP / "export" / "dim_export"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    listed = set(re.findall(r"\| `([\w/.]+)` \|", (TOP / "export" / "README.md").read_text(encoding="utf-8")))
    assert listed == rooms | files


@pytest.mark.parametrize("name", ["docs/export.md"])
def test_the_smallest_window_is_true(name: str) -> None:
    text = " ".join((TOP / name).read_text(encoding="utf-8").split())
    assert _stated(r"\(embedded model: (\d+)\)", text) == [2 * read_metadata(default_model()).context + 32]
