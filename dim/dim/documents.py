"""Parse JSON and TOML that others wrote: whatever is wrong with the text is a ValueError."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, or a number of thousands of digits.
    """
    return _parsed(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; errors as in :func:`parse_json`."""
    document: dict[str, Any] = _parsed(tomllib.loads, text)
    return document


def _parsed(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        return parse(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
