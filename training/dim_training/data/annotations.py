"""Annotation files of MMEditing 0.x and MMagic 1.x: which image files belong together.

A JSON list of objects, or ``{"metainfo": …, "data_list": [objects]}``. The values of ``alpha_path``,
``fg_path``, ``bg_path``, ``merged_path`` and ``trimap_path`` are paths relative to the root of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from dim.documents import parse_json
from dim.errors import InputError

SUFFIX = "_path"
"""Suffix of every key of a file; the ones that MMEditing's documentation shows lack it."""

_DRAWN_TOGETHER = frozenset({"fg", "merged", "trimap"})
"""Keys of files whose pixels belong to the alpha's; a background may have any orientation."""

_MOST_LISTED = 20

_READERS = 16
"""Threads that look at headers: the work is waiting for the disk or the network."""

_ORIENTATION = 0x0112
"""EXIF tag."""

_QUARTER_TURNS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

Size = tuple[int, int]
"""Width and height, pixels."""


class Annotation(NamedTuple):
    """The files of one training composition, all of one size.

    Attributes:
        alpha: gray.
        foreground, background: colours; the background is cut to the foreground's size.
        merged: composite of the three; it need not exist unless it was asked for.
    """

    alpha: Path
    foreground: Path
    background: Path
    merged: Path | None


class ScoringAnnotation(NamedTuple):
    """The files of one test image, all of one size: alpha and trimap gray, merged in colour."""

    alpha: Path
    merged: Path
    trimap: Path


class Probe(NamedTuple):
    """The result of opening an image file.

    Attributes:
        size: after the file is turned upright, as its EXIF orientation asks; None if it cannot be read.
        problem: reason why it cannot be read.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    size: Size | None
    problem: str | None
    orientation: int = 1


def read(path: Path, data_root: Path, *, composed: bool = False) -> list[Annotation]:
    """Read the compositions that an annotation file lists, in its order, and every file's header.

    Args:
        path: annotation file. Trimaps that it names are not looked at, and need not exist, as in MMagic:
            training makes its own.
        data_root: what its paths are relative to.
        composed: the composites are read from disk too, so that they must exist.

    Raises:
        InputError: no annotation file, or any of its entries or files cannot be used; names them all, up to
            a limit.
    """
    keys = ("alpha", "fg", "bg", *(("merged",) if composed else ()))
    entries = _Entries(path, data_root, required=keys, optional=("merged",))
    entries.check_files(keys)
    return [Annotation(row["alpha"], row["fg"], row["bg"], row.get("merged")) for row in entries.rows]


def read_test(path: Path, data_root: Path) -> list[ScoringAnnotation]:
    """Read the test images that an annotation file lists; foregrounds and backgrounds are not needed.

    Raises:
        InputError: as :func:`read` does.
    """
    keys = ("alpha", "merged", "trimap")
    entries = _Entries(path, data_root, required=keys)
    entries.check_files(keys)
    return [ScoringAnnotation(row["alpha"], row["merged"], row["trimap"]) for row in entries.rows]


def probe(path: Path, look: Callable[[Image.Image], Size] | None = None) -> Probe:
    """Return the size of an image file from its header, or from ``look``, which may decode it and raise."""
    try:
        if not path.is_file():
            return Probe(None, f"{path}: no such file")
        with Image.open(path) as image:
            if look is not None:
                return Probe(look(image), None)
            orientation = image.getexif().get(_ORIENTATION, 1)
            # From 5 on, upright means a quarter turn.
            size = image.size[::-1] if orientation in _QUARTER_TURNS else image.size
            return Probe(size, None, orientation)
    except Exception as error:  # decoders raise errors of many classes on damaged files
        return Probe(None, f"{path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def sizes_differ(of: Path, size: Size, like: Path, expected: Size) -> str:
    """Return a line for an error's list: two files of different sizes."""
    return f"{of}: {size[0]} × {size[1]} px, but {like} has {expected[0]} × {expected[1]} px"


def listed(problems: Sequence[str]) -> str:
    """Return the first problems, one per line, and their total number."""
    lines = list(problems[:_MOST_LISTED])
    if len(problems) > _MOST_LISTED:
        lines.append(f"… and {len(problems) - _MOST_LISTED} more; {len(problems)} in all")
    return "\n    ".join(lines)


class _Entries:
    """Entries of an annotation file: paths by key (``alpha``, ``fg`` …), and their problems."""

    def __init__(
        self, path: Path, data_root: Path, *, required: Sequence[str], optional: Sequence[str] = ()
    ) -> None:
        self.path, self.data_root = path, data_root
        self.required, self.optional = required, optional
        self.problems: list[str] = []
        self.rows = [self._row(index, entry) for index, entry in enumerate(_load(path))]

    def check_files(self, keys: Iterable[str]) -> None:
        """Raise if an entry is malformed, or a file of these keys is missing, damaged or of another size."""
        keys = tuple(keys)
        probes = _probe_all({row[key] for row in self.rows for key in keys if key in row})
        self.problems += [probe.problem for probe in probes.values() if probe.problem is not None]
        sizes = {file: probe.size for file, probe in probes.items() if probe.size is not None}
        # dict.fromkeys removes duplicates: entries share a foreground.
        self.problems += dict.fromkeys(
            text for row in self.rows for text in _size_mismatches(row, keys, sizes)
        )
        self.problems += dict.fromkeys(text for row in self.rows for text in _turned(row, keys, probes))
        if self.problems:
            raise InputError(
                f"cannot use the data of {self.path}: {len(self.problems)} problems",
                got=listed(self.problems),
                expected="images of one size for each entry, at paths relative to "
                f"{self.data_root}, under the keys {_names(self.required)}",
                fix="dim-train prepare-comp1k makes the backgrounds and, for training with --composite, the "
                "composites",
            )

    def _row(self, index: int, entry: object) -> dict[str, Path]:
        if not isinstance(entry, dict):
            self.problems.append(f"entry {index}: {type(entry).__name__} instead of an object")
            return {}
        row = {key: self._file(index, entry, key) for key in dict.fromkeys((*self.required, *self.optional))}
        return {key: file for key, file in row.items() if file is not None}

    def _file(self, index: int, entry: dict[str, Any], key: str) -> Path | None:
        value = entry.get(key + SUFFIX)
        if isinstance(value, str) and value.strip():
            return self.data_root / value
        if value is None and key not in self.required:
            return None
        self.problems.append(f"entry {index}: {_what_is_wrong(entry, key)}")
        return None


def _what_is_wrong(entry: dict[str, Any], key: str) -> str:
    name = key + SUFFIX
    if name in entry:
        return f"{name} is {entry[name]!r}, not a path"
    return f"no {name}" + (f" (it has {key}, which lacks the ending {SUFFIX})" if key in entry else "")


def _load(path: Path) -> list[Any]:
    problem = f"cannot read the annotation file {path}"
    try:
        document = parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            problem,
            got=error.strerror,
            fix="dim-train prepare-comp1k makes training_list.json and test_list.json",
        ) from error
    except ValueError as error:
        raise InputError(problem, got="a file that is not JSON", why=str(error)) from error
    entries = document.get("data_list") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries:
        raise InputError(
            problem,
            got="an empty list" if entries == [] else type(document).__name__,
            expected='a list of entries, or {"metainfo": …, "data_list": [entries]}',
        )
    return entries


def _probe_all(paths: Iterable[Path]) -> dict[Path, Probe]:
    unique = sorted(set(paths))
    Image.init()  # registers the formats once, before several threads use them
    with ThreadPoolExecutor(_READERS) as readers:
        return dict(zip(unique, readers.map(probe, unique), strict=True))


def _turned(row: dict[str, Path], keys: Iterable[str], probes: dict[Path, Probe]) -> list[str]:
    """Report files that EXIF turns otherwise than their alpha: the alpha may be of the pixels as stored."""
    alpha = probes.get(row["alpha"]) if "alpha" in row else None
    if alpha is None:
        return []
    files = [row[key] for key in keys if key in row and key in _DRAWN_TOGETHER and row[key] in probes]
    return [
        f"{file}: EXIF orientation {probes[file].orientation}, but {row['alpha']} has {alpha.orientation}; "
        "save both upright"
        for file in files
        if probes[file].orientation != alpha.orientation
    ]


def _size_mismatches(row: dict[str, Path], keys: Iterable[str], sizes: dict[Path, Size]) -> list[str]:
    """Report files of an entry whose size is not its alpha's."""
    alpha = row.get("alpha")
    if alpha is None or alpha not in sizes:
        return []
    expected = sizes[alpha]
    others = [row[key] for key in keys if key in row and row[key] in sizes]
    return [
        sizes_differ(other, sizes[other], alpha, expected) for other in others if sizes[other] != expected
    ]


def _names(keys: Iterable[str]) -> str:
    return ", ".join(key + SUFFIX for key in keys)
