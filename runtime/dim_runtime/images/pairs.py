"""Pairs of image and trimap in folders, matched by the file name without its suffix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dim.errors import InputError
from dim.images.files import READABLE


class Pair(NamedTuple):
    """Files of one name. A complete pair has one image and one trimap."""

    name: str
    images: tuple[Path, ...]
    trimaps: tuple[Path, ...]

    def files(self) -> tuple[Path, Path]:
        """The image and the trimap; InputError if one is missing or there are several."""
        return self._only("image", self.images), self._only("trimap", self.trimaps)

    def _only(self, what: str, files: tuple[Path, ...]) -> Path:
        if len(files) == 1:
            return files[0]
        raise InputError(
            f"cannot pair {self.name}",
            got=f"no {what}"
            if not files
            else f"{len(files)} {what}s: {', '.join(file.name for file in files)}",
            expected=f"one {what} of this name",
        )


def find_pairs(images: Path, trimaps: Path | None = None) -> list[Pair]:
    """All names in two folders, sorted, complete or not.

    Args:
        images: folder of images; with ``trimaps=None`` a folder that holds ``images/`` and ``trimaps/``.
        trimaps: folder of trimaps.

    Raises:
        InputError: a folder that is not there, or nothing to do.
    """
    if trimaps is None:
        images, trimaps = images / "images", images / "trimaps"
    found = [_by_stem(folder) for folder in (images, trimaps)]
    names = sorted({name for group in found for name in group})
    if not names:
        raise InputError(f"there are no images in {images}", expected=f"files such as NAME{READABLE[0]}")
    return [Pair(name, *(tuple(group.get(name, ())) for group in found)) for name in names]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise InputError(f"cannot read the folder {folder}", got="no such folder")
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in _readable(folder):
        groups[file.stem].append(file)
    return groups


def _readable(folder: Path) -> Iterator[Path]:
    files = (
        file for file in folder.iterdir() if file.suffix.lower() in READABLE and not file.name.startswith(".")
    )
    return iter(sorted(files))
