"""Photographs to score, with trimap and true alpha, from a folder or from an annotation file."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from dim import trimap as trimaps
from dim.arrays import UInt8
from dim.errors import InputError
from dim.images import read_alpha, read_image
from dim.images.folders import by_name, unmatched
from dim_runtime.images.pairs import (
    MattingSample,
    Pair,
    find_pairs,
    read_sample,
    require_one_size,
    require_paired,
)

FOLDERS = ("images", "trimaps", "alphas")

_READERS = 8
"""Threads that decode files for :func:`survey`."""


class Survey(NamedTuple):
    """Result of decoding every file of some entries.

    Attributes:
        problems: one line for each file that is missing or damaged, and for each entry of several sizes.
        mapped: pixels of trimaps that are neither 0, 128 nor 255; they are read as one of the three.
    """

    problems: list[str]
    mapped: int


def find_entries(data: Path, data_root: Path | None = None) -> list[Pair]:
    """Return the photographs of a data set, in its order.

    Args:
        data: folder with images/, trimaps/ and alphas/ of equal stems, or an annotation file (JSON) of
            MMEditing or MMagic.
        data_root: what an annotation file's paths are relative to; None for its own folder.

    Raises:
        InputError: no data, or photographs whose files are missing or ambiguous; names them all.
    """
    if data.is_dir():
        return find_pairs(data, alphas=True)
    if not data.exists():
        raise InputError(
            f"cannot read the data {data}",
            got="no such file or folder",
            expected=f"a folder with {', '.join(FOLDERS)}, or an annotation file (JSON)",
        )
    return _annotated(data, data.parent if data_root is None else data_root)


def readable_entries(data: Path, data_root: Path | None = None) -> list[Pair]:
    """Return :func:`find_entries`; each file is decoded once, and damaged ones are listed together."""
    entries = find_entries(data, data_root)
    require_readable(data, survey(entries).problems)
    return entries


def find_saved(folder: Path, entries: Sequence[Pair]) -> dict[str, Path]:
    """Return the saved alpha of each photograph: the image file of its name, any suffix.

    Args:
        folder: holds ``NAME.*`` for each photograph, as ``dim-train test --alphas`` writes them.
        entries: the photographs; files of other names are ignored.

    Raises:
        InputError: no such folder, or photographs with no file or several; names them.
    """
    files = by_name(folder)
    found = {entry.name: files.get(unicodedata.normalize("NFC", entry.name), []) for entry in entries}
    require_paired(folder, [unmatched(name, folder, each) for name, each in found.items() if len(each) != 1])
    return {name: each[0] for name, each in found.items()}


def read_saved(path: Path, photo: MattingSample) -> UInt8:
    """Read a saved alpha, uint8 H, W, of a photograph; InputError for one of another size."""
    alpha = read_alpha(path)
    if alpha.shape != photo.trimap.shape:
        raise InputError(
            f"cannot score {path}",
            got=f"{alpha.shape[1]}×{alpha.shape[0]} px",
            expected=f"{photo.trimap.shape[1]}×{photo.trimap.shape[0]} px, the size of the photograph",
        )
    return alpha


def prefetched(entries: Iterable[Pair]) -> Iterator[MattingSample]:
    """Yield the photographs in order, each decoded by a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for entry in entries:
            current, ahead = ahead, reader.submit(read_sample, entry)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()


def survey(entries: Sequence[Pair]) -> Survey:
    """Decode every file once and list the problems, so that nothing fails in the middle of a long run."""
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers:
        found = list(readers.map(_look_at, entries))
    return Survey([line for part in found for line in part.problems], sum(part.mapped for part in found))


def require_readable(data: Path, problems: Sequence[str]) -> None:
    """Raise InputError that lists the problems, if there are any."""
    if problems:
        raise InputError(
            f"cannot score the photographs of {data}",
            got=f"{len(problems)} problems:\n    " + "\n    ".join(problems),
            expected="image, trimap and alpha of one size for each",
        )


def _annotated(path: Path, root: Path) -> list[Pair]:
    from dim_training.data import annotations

    rows = annotations.read_test(path, root)
    names = _names([row.merged for row in rows])
    return [Pair(name, row.merged, row.trimap, row.alpha) for name, row in zip(names, rows, strict=True)]


def _names(images: Sequence[Path]) -> list[str]:
    """Return the files' stems, or their paths below the common folder if stems repeat."""
    stems = [image.stem for image in images]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath(image.parent for image in images)
    return [image.relative_to(common).with_suffix("").as_posix() for image in images]


def _look_at(entry: Pair) -> Survey:
    """Decode the files of one photograph."""
    problems: list[str] = []
    arrays: list[npt.NDArray[Any]] = []
    mapped = 0
    for path, read in ((entry.image, read_image), (entry.trimap, trimaps.read), (entry.alpha, read_alpha)):
        assert path is not None, "photographs that are scored have an alpha"
        try:
            found = read(path)
            if isinstance(found, trimaps.Reading):
                found, mapped = found
                trimaps.require_unknown(found, str(path))
            arrays.append(found)
        except InputError as error:
            problems.append(f"{path}: {error.got}")
    if not problems:
        try:
            require_one_size(entry, *arrays)
        except InputError as error:
            problems.append(f"{entry.image}: {error.got}")
    return Survey(problems, mapped)
