"""What is scored: photographs with trimap and true alpha, from a folder or from an annotation file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dim import trimap as trimaps
from dim.arrays import UInt8
from dim.errors import InputError
from dim.images import read_alpha
from dim_training.data.files import image_files, read_rgb

FOLDERS = ("images", "trimaps", "alphas")

_READERS = 8
"""Threads that decode files for :func:`survey`."""


class Entry(NamedTuple):
    """The files of one photograph: colours, trimap and true alpha, all of one size."""

    name: str
    image: Path
    trimap: Path
    alpha: Path


class Photograph(NamedTuple):
    """``image`` uint8 H, W, 3 RGB; ``trimap`` (canonical) and ``alpha`` (truth) uint8 H, W."""

    name: str
    image: UInt8
    trimap: UInt8
    alpha: UInt8


class Survey(NamedTuple):
    """What decoding every file of some entries found.

    Attributes:
        problems: one line for each file that is missing or damaged, and for each entry of several sizes.
        mapped: pixels of trimaps that are neither 0, 128 nor 255; they are read as one of the three.
    """

    problems: list[str]
    mapped: int


def find_entries(data: Path, data_root: Path | None = None) -> list[Entry]:
    """The photographs of a data set, in its order.

    Args:
        data: folder with images/, trimaps/ and alphas/ of equal stems, or an annotation file (JSON) of
            MMEditing or MMagic.
        data_root: what an annotation file's paths are relative to; None for its own folder.

    Raises:
        InputError: no data, or photographs whose files are missing or ambiguous; names them all.
    """
    if data.is_dir():
        return _in_folder(data)
    if not data.exists():
        raise InputError(
            f"cannot read the data {data}",
            got="no such file or folder",
            expected=f"a folder with {', '.join(FOLDERS)}, or an annotation file (JSON)",
        )
    return _annotated(data, data.parent if data_root is None else data_root)


def read(entry: Entry) -> Photograph:
    """Decode one photograph; InputError if a file is missing, damaged or of another size."""
    image, alpha = read_rgb(entry.image), read_alpha(entry.alpha)
    trimap = trimaps.read(entry.trimap).trimap
    if not image.shape[:2] == trimap.shape == alpha.shape:
        raise InputError(
            f"cannot score {entry.image}",
            got=_sizes(image, trimap, alpha),
            expected="image, trimap and alpha of one size",
        )
    return Photograph(entry.name, image, trimap, alpha)


def readable_entries(data: Path, data_root: Path | None = None) -> list[Entry]:
    """:func:`find_entries`, each file decoded once: what is missing or damaged is listed together."""
    entries = find_entries(data, data_root)
    require_readable(data, survey(entries).problems)
    return entries


def prefetched(entries: Iterable[Entry]) -> Iterator[Photograph]:
    """The photographs in order, each decoded by a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for entry in entries:
            current, ahead = ahead, reader.submit(read, entry)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()


def survey(entries: Sequence[Entry]) -> Survey:
    """Decode every file once and tell what is wrong, so that nothing fails in the middle of a long run."""
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers:
        found = list(readers.map(_look_at, entries))
    return Survey([line for part in found for line in part.problems], sum(part.mapped for part in found))


def require_readable(data: Path, problems: Sequence[str]) -> None:
    """InputError that lists the problems, if there are any."""
    if problems:
        raise InputError(
            f"cannot score the photographs of {data}",
            got=f"{len(problems)} problems:\n    " + "\n    ".join(problems),
            expected="image, trimap and alpha of one size for each",
        )


def _in_folder(root: Path) -> list[Entry]:
    images, *partners = (_by_stem(root / name) for name in FOLDERS)
    problems = _ambiguous(root, images, partners)
    require_readable(root, problems)
    return [Entry(stem, files[0], *(found[stem][0] for found in partners)) for stem, files in images.items()]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in image_files(folder):
        found[path.stem].append(path)
    return dict(found)


def _ambiguous(
    root: Path, images: dict[str, list[Path]], partners: Sequence[dict[str, list[Path]]]
) -> list[str]:
    """A line for every file that is missing, or that is there several times."""
    by_folder = zip(FOLDERS, (images, *partners), strict=True)
    counted = [(stem, name, files.get(stem, [])) for name, files in by_folder for stem in images]
    return [
        f"no {stem}.* in {root / name}"
        if not files
        else f"{len(files)} files for {stem} in {root / name}: {', '.join(file.name for file in files)}"
        for stem, name, files in counted
        if len(files) != 1
    ]


def _annotated(path: Path, root: Path) -> list[Entry]:
    from dim_training.data import annotations

    rows = annotations.read_test(path, root)
    names = _names([row.merged for row in rows])
    return [Entry(name, row.merged, row.trimap, row.alpha) for name, row in zip(names, rows, strict=True)]


def _names(images: Sequence[Path]) -> list[str]:
    """The files' stems; where these are not unique, as much of the paths as tells them apart."""
    stems = [image.stem for image in images]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath(image.parent for image in images)
    return [image.relative_to(common).with_suffix("").as_posix() for image in images]


def _look_at(entry: Entry) -> Survey:
    problems: list[str] = []
    arrays: list[UInt8] = []
    mapped = 0
    for path, kind in ((entry.image, "image"), (entry.trimap, "trimap"), (entry.alpha, "alpha")):
        try:
            if kind == "trimap":
                trimap, mapped = trimaps.read(path)
                arrays.append(trimap)
            else:
                arrays.append(read_rgb(path) if kind == "image" else read_alpha(path))
        except InputError as error:
            problems.append(f"{path}: {error.got}")
    if not problems and len({array.shape[:2] for array in arrays}) > 1:
        problems.append(f"{entry.image}: {_sizes(*arrays)}")
    return Survey(problems, mapped)


def _sizes(image: UInt8, trimap: UInt8, alpha: UInt8) -> str:
    named = (("image", image), ("trimap", trimap), ("alpha", alpha))
    return ", ".join(f"{name} {array.shape[1]}×{array.shape[0]} px" for name, array in named)
