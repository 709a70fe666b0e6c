"""Layout of the archive of Composition-1k, and the background of each foreground.

Names, folders and the order of the entries are those of MMEditing's preparation, so that annotation files
and prepared folders can be exchanged.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dim.errors import InputError
from dim_training.data.annotations import listed

COCO_PREFIX = "COCO_train2014_"
"""The archive lists COCO's files by their names of 2014; those of 2017 lack this."""


class Subset(NamedTuple):
    """One of the archive's two sets.

    Attributes:
        name: as its lists of names and its annotation file begin.
        folder: below the root of the archive.
        per_foreground: backgrounds for each foreground.
        published: foregrounds in the archive as Adobe gives it out.
        trimaps: folder of given trimaps; None where training makes them.
        sources: folders with ``fg/`` and ``alpha/``, in the order in which they are searched.
    """

    name: str
    folder: str
    per_foreground: int
    published: int
    trimaps: str | None
    sources: tuple[str, ...] = ("Adobe-licensed images", "Other")

    @property
    def annotation(self) -> str:
        """Name of the annotation file, below the root."""
        return f"{self.name}_list.json"

    def names_file(self, kind: str) -> str:
        """List of the foregrounds' (``fg``) or the backgrounds' (``bg``) file names, below the root."""
        return f"{self.folder}/{self.name}_{kind}_names.txt"


TRAINING = Subset("training", "Training_set", per_foreground=100, published=431, trimaps=None)
TEST = Subset("test", "Test_set", 20, published=50, trimaps="Adobe-licensed images/trimaps")


class Names(NamedTuple):
    """File names in the order of the lists: foreground k goes with backgrounds k·n … k·n + n − 1."""

    foregrounds: list[str]
    backgrounds: list[str]


class Photographs(NamedTuple):
    """A folder of background photographs, and what its file names lack of the listed ones."""

    folder: Path
    dropped_prefix: str = ""

    def path(self, name: str) -> Path:
        """Return the file of a listed name."""
        return self.folder / name.removeprefix(self.dropped_prefix)


class Foreground(NamedTuple):
    """Two files of one name, relative to the root of the archive."""

    colours: str
    alpha: str


class Entry(NamedTuple):
    """One composition; all but ``photograph`` relative to the root, with forward slashes.

    Attributes:
        background: the photograph enlarged and cut to the foreground's size; made here.
        merged: the composite; made here.
        trimap: given; None in the training set.
        photograph: what the background is made of.
    """

    foreground: Foreground
    background: str
    merged: str
    trimap: str | None
    photograph: Path

    def annotation(self) -> dict[str, str]:
        """Return the entry in the form of the annotation file."""
        paths = {
            "alpha_path": self.foreground.alpha,
            "fg_path": self.foreground.colours,
            "bg_path": self.background,
            "merged_path": self.merged,
        }
        return paths if self.trimap is None else {**paths, "trimap_path": self.trimap}


def read_names(root: Path, subsets: list[Subset]) -> list[Names]:
    """Read the lists of names of every set.

    Raises:
        InputError: a list is missing, holds text that is not a file name, names a foreground twice, or their
            lengths do not fit together; lists all problems.
    """
    found = [_read_set(root, subset) for subset in subsets]
    problems = [problem for _, of_set in found for problem in of_set]
    if problems:
        raise InputError(
            f"cannot prepare Composition-1k in {root}",
            got=listed(problems),
            expected="; ".join(_published(subset) for subset in subsets),
            fix="take the lists from the archive as Adobe gives it out, unedited",
        )
    return [names for names, _ in found]


def _published(subset: Subset) -> str:
    backgrounds = subset.published * subset.per_foreground
    return (
        f"{subset.per_foreground} backgrounds for each {subset.name} foreground (the published archive names"
        f" {subset.published} foregrounds and {backgrounds} backgrounds)"
    )


def _read_set(root: Path, subset: Subset) -> tuple[Names, list[str]]:
    problems: list[str] = []
    lists = [_read_list(root / subset.names_file(kind), problems) for kind in ("fg", "bg")]
    names = Names(*lists)
    return names, problems or _misfits(subset, names)


def _read_list(path: Path, problems: list[str]) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}")
        return []
    names = [line.strip() for line in lines if line.strip()]
    problems += [f"{path}: {name!r} is no file name" for name in names if not _is_file_name(name)]
    return names


def _is_file_name(name: str) -> bool:
    return "/" not in name and "\\" not in name and name not in (".", "..")


def _misfits(subset: Subset, names: Names) -> list[str]:
    foregrounds, backgrounds = len(names.foregrounds), len(names.backgrounds)
    stems = Counter(PurePosixPath(name).stem for name in names.foregrounds)
    problems = [f"{subset.names_file('fg')}: {stem} is there {n} times" for stem, n in stems.items() if n > 1]
    if not foregrounds or foregrounds * subset.per_foreground != backgrounds:
        problems.append(
            f"{subset.folder}: {foregrounds} foregrounds × {subset.per_foreground} ="
            f" {foregrounds * subset.per_foreground}, but {backgrounds} backgrounds"
        )
    return problems


def find_coco(root: Path) -> Photographs:
    """Find COCO's training photographs of 2014, or else of 2017."""
    choices = (Photographs(root / "train2014"), Photographs(root / "train2017", COCO_PREFIX))
    return _find(choices, f"train2014 or train2017 in {root}", "https://cocodataset.org")


def find_voc(root: Path) -> Photographs:
    """Find Pascal VOC 2012's photographs in ``VOCdevkit``, the folder around it, or ``VOC2012`` itself."""
    folders = (root / "VOC2012", root / "VOCdevkit" / "VOC2012", root)
    choices = tuple(Photographs(folder / "JPEGImages") for folder in folders)
    return _find(choices, f"VOC2012/JPEGImages in {root}", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012")


def _find(choices: tuple[Photographs, ...], expected: str, home: str) -> Photographs:
    for choice in choices:
        if choice.folder.is_dir():
            return choice
    raise InputError(
        "cannot find the background photographs",
        got="no such folder",
        expected=expected,
        fix=f"get it: {home}",
    )


def entries(root: Path, subset: Subset, names: Names, photographs: Photographs) -> list[Entry]:
    """Return all compositions of a set, in the order of its annotation file."""
    n = subset.per_foreground
    return [
        _entry(subset, foreground, name, i, photographs.path(background))
        for k, name in enumerate(names.foregrounds)
        for foreground in [_locate(root, subset, name)]
        for i, background in enumerate(names.backgrounds[k * n : (k + 1) * n])
    ]


def _entry(subset: Subset, foreground: Foreground, name: str, index: int, photograph: Path) -> Entry:
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    return Entry(
        foreground,
        background=f"{subset.folder}/bg/{stem}_{index}.png",
        merged=f"{subset.folder}/merged/{stem}_{index}.png",
        trimap=None if subset.trimaps is None else f"{subset.folder}/{subset.trimaps}/{stem}_{index}{suffix}",
        photograph=photograph,
    )


def _locate(root: Path, subset: Subset, name: str) -> Foreground:
    return Foreground(_first(root, subset, f"fg/{name}"), _first(root, subset, f"alpha/{name}"))


def _first(root: Path, subset: Subset, tail: str) -> str:
    """Return the first candidate that exists; if none does, the first, which the check reports."""
    candidates = [f"{subset.folder}/{source}/{tail}" for source in subset.sources]
    return next((candidate for candidate in candidates if (root / candidate).is_file()), candidates[0])
