"""Find image files in folders, and match them by name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path

from dim.errors import InputError
from dim.images.files import READABLE

SYSTEM_FOLDER = "__MACOSX"
"""Folder that macOS adds to archives; its files only look like images."""
SHOWN = 20
"""Problems listed in one error."""


def image_files(folder: Path, *, skip: Path | None = None) -> list[Path]:
    """Return every image file below a folder, sorted; hidden files and folders are left out.

    Args:
        folder: searched with its sub-folders.
        skip: a folder below it that is left out.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise InputError(f"cannot read the folder {folder}", got=got)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in READABLE)
    kept = (path for path in found if not _is_hidden(path.relative_to(folder)) and path.is_file())
    return sorted(path for path in kept if skip in (None, folder) or not path.is_relative_to(skip))


def by_name(folder: Path, *, skip: Path | None = None) -> dict[str, list[Path]]:
    """Return the image files below a folder by their name: path below the folder, without suffix.

    Names are in Unicode's composed form (NFC), so that names from macOS match those of other systems.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder, skip=skip):
        groups[name_of(path, folder)].append(path)
    return dict(groups)


def name_of(path: Path, folder: Path) -> str:
    """Return the path of a file below a folder, with slashes, without suffix, in Unicode's NFC form."""
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())


def unmatched(name: str, folder: Path, files: list[Path]) -> str:
    """Return why a folder's files of one name cannot be used: none, or several."""
    if files:
        return f"{len(files)} files for {name} in {folder}: {', '.join(file.name for file in files)}"
    parent = (folder / name).parent
    others = sorted(parent.iterdir()) if parent.is_dir() else []
    unusable = [file.name for file in others if name_of(file, folder) == name and file.is_file()]
    text = f"no {name}.* in {folder}"
    if unusable:
        text += f" ({', '.join(unusable)} has none of the suffixes {' '.join(READABLE)})"
    return text


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == SYSTEM_FOLDER for part in path.parts)
