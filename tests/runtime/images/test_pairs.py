"""Pairs by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dim.errors import InputError
from dim_runtime.images.pairs import find_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/b.jpg", "images/a.PNG", "images/lone.png", "images/notes.txt", "images/twice.png"):
        touch(tmp_path / name)
    for name in (
        "trimaps/a.png",
        "trimaps/b.png",
        "trimaps/only.png",
        "trimaps/twice.png",
        "trimaps/twice.tif",
    ):
        touch(tmp_path / name)
    return tmp_path


def touch(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


def test_names_are_paired_in_order(folder: Path) -> None:
    pairs = find_pairs(folder / "images", folder / "trimaps")
    assert [pair.name for pair in pairs] == ["a", "b", "lone", "only", "twice"]
    assert pairs[0].files() == (folder / "images/a.PNG", folder / "trimaps/a.png")
    assert find_pairs(folder) == pairs


@pytest.mark.parametrize(
    ("index", "message"), [(2, "no trimap"), (3, "no image"), (4, r"2 trimaps: .*twice\.tif")]
)
def test_incomplete_pairs_are_errors_of_their_own(folder: Path, index: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_pairs(folder)[index].files()


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="no images"):
        find_pairs(tmp_path, tmp_path)
