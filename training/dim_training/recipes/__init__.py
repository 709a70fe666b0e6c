"""The recipes that are shipped: TOML files of this folder, addressed by their stems."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from dim.errors import InputError

_FOLDER = Path(__file__).parent


def shipped() -> Mapping[str, Path]:
    """Return the shipped recipes by name, sorted."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def summary(recipe: Path) -> str:
    """Return the first sentence of a recipe's comment: what it trains."""
    lines = takewhile(lambda line: line.startswith("# "), recipe.read_text("utf-8").splitlines())
    words = " ".join(line.removeprefix("# ") for line in lines)
    return re.split(r"(?<=\.)\s|;\s", words)[0].rstrip(".") + "."


def locate(recipe: str | Path) -> Path:
    """Return the file of a recipe: a path that exists, or else a shipped recipe of this name.

    Raises:
        InputError: neither; the nearest names are proposed.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = shipped()
    if str(recipe) in names:
        return names[str(recipe)]
    near = get_close_matches(path.stem, names, n=1)
    raise InputError(
        f"cannot find the recipe {recipe}",
        got="a folder" if path.is_dir() else "no such file, and no shipped recipe of this name",
        expected=f"a TOML file, or {', '.join(names)}",
        fix=f"dim-train fit {near[0]}" if near else "dim-train recipes lists the shipped ones",
    )
