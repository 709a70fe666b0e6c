"""Image files of folders: which are found, and under which name."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dim.errors import InputError
from dim.images import READABLE, read_image
from dim.images.folders import by_name, image_files, name_of, unmatched

Image: Any = pytest.importorskip("PIL.Image")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_image_files_of_sub_folders_are_found_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpeg", "deep/er/c.tif", "d.txt", "e", "f.png/inside.webp")
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "deep/er/c.tif", "f.png/inside.webp"]


def test_hidden_files_and_those_of_the_system_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "._a.png", ".cache/b.png", "__MACOSX/c.png", "deep/.d.png", "e.png")
    assert image_files(tmp_path) == [tmp_path / "e.png"]


def test_a_folder_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png", "outer/b.png")
    assert image_files(tmp_path, skip=tmp_path / "out") == [tmp_path / "a.png", tmp_path / "outer" / "b.png"]
    # The folder itself is searched: its results replace its images.
    assert len(image_files(tmp_path, skip=tmp_path)) == 3


def test_other_places_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(InputError, match="a file"):
        image_files(tmp_path / "a.png")
    with pytest.raises(InputError, match="no such folder"):
        image_files(tmp_path / "none")


def test_names_are_paths_without_suffix_in_composed_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    touch(tmp_path, f"deep/{decomposed}.v2.png", f"deep/{decomposed}.v2.jpg")
    assert {name: len(files) for name, files in by_name(tmp_path).items()} == {"deep/é.v2": 2}
    assert name_of(tmp_path / "a.b.png", tmp_path) == "a.b"


def test_why_a_name_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.heic", "b2.heic")
    files = sorted(by_name(tmp_path)["a"])
    assert unmatched("a", tmp_path, files) == f"2 files for a in {tmp_path}: a.jpg, a.png"
    assert "(b.heic has none of the suffixes .png .jpg" in unmatched("b", tmp_path, [])
    assert unmatched("c", tmp_path, []) == f"no c.* in {tmp_path}"
    assert unmatched("deep/c", tmp_path, []) == f"no deep/c.* in {tmp_path}"


@pytest.mark.parametrize("suffix", READABLE)
def test_what_is_found_is_read(suffix: str, tmp_path: Path) -> None:
    """A format that folders may hold is one that the reader takes."""
    path = tmp_path / f"image{suffix}"
    picture = Image.new("1" if suffix == ".pbm" else "RGB", (64, 48), "white")
    try:
        picture.save(path)
    except (KeyError, OSError, ValueError) as error:
        pytest.skip(f"this build of Pillow does not write it: {error}")
    found = read_image(image_files(tmp_path)[0])
    assert found.shape == (48, 64, 3)
    assert found.min() >= 254
