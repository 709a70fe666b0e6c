"""Files are paired by name, and read as arrays of one size."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dim.errors import InputError
from dim.images import write_image
from dim_runtime.images.pairs import Pair, find_pairs, pair_up, read_sample

TRIMAP = np.array([[0, 128, 255, 255]], np.uint8).repeat(3, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path, "images/b.jpg", "images/a.PNG", "images/lone.png", "images/notes.txt", "images/twice.png")
    touch(tmp_path, "trimaps/a.png", "trimaps/b.png", "trimaps/only.png", "trimaps/twice.png")
    touch(tmp_path, "trimaps/twice.tif")
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_names_are_paired_in_order(folder: Path) -> None:
    found = pair_up(folder / "images", folder / "trimaps")
    assert [pair.name for pair in found.pairs] == ["a", "b"]
    assert found.pairs[0] == Pair("a", folder / "images/a.PNG", folder / "trimaps/a.png")
    assert pair_up(folder) == found


@pytest.mark.parametrize(
    ("index", "name", "message"),
    [(0, "lone", "no lone.* in {}/trimaps"), (1, "only", "no only.* in {}/images"), (2, "twice", "2 files")],
)
def test_incomplete_pairs_are_apart(folder: Path, index: int, name: str, message: str) -> None:
    lone = pair_up(folder).unpaired[index]
    assert lone.name == name
    assert message.format(folder) in lone.problem


def test_incomplete_pairs_are_listed_together(folder: Path) -> None:
    with pytest.raises(InputError, match="3 problems") as caught:
        find_pairs(folder)
    for text in ("no lone.*", "no only.*", "twice.png, twice.tif"):
        assert text in str(caught.value)


def test_each_image_needs_an_alpha_where_they_are_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "trimaps/a.png", "alphas/a.tif", "alphas/other.png")
    assert find_pairs(tmp_path, alphas=True)[0].alpha == tmp_path / "alphas/a.tif"
    assert find_pairs(tmp_path)[0].alpha is None
    touch(tmp_path, "alphas/a.png")
    with pytest.raises(InputError, match="2 files for a in"):
        find_pairs(tmp_path, alphas=True)
    for file in (tmp_path / "alphas").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"no a\.\* in"):
        find_pairs(tmp_path, alphas=True)


def test_sub_folders_are_paired_with_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "images/1/a.png", "images/2/a.png", "trimaps/1/a.png", "trimaps/2/a.png")
    assert [(pair.name, pair.trimap) for pair in find_pairs(tmp_path)] == [
        (f"{n}/a", tmp_path / f"trimaps/{n}/a.png") for n in (1, 2)
    ]
    (tmp_path / "trimaps/2/a.png").rename(tmp_path / "trimaps/a.png")
    assert [lone.name for lone in pair_up(tmp_path).unpaired] == ["2/a", "a"]


def test_hidden_files_are_skipped_and_so_is_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.png", "p/._a.png", "p/.ipynb_checkpoints/a.png", "p/__MACOSX/a.png", "p/out/a.png")
    touch(tmp_path, "t/a.png")
    found = pair_up(tmp_path / "p", tmp_path / "t", skip=tmp_path / "p" / "out")
    assert [pair.name for pair in found.pairs] == ["a"]
    assert not found.unpaired


def test_both_forms_of_an_accent_are_one_name(tmp_path: Path) -> None:
    touch(tmp_path, f"images/{unicodedata.normalize('NFC', 'née')}.png")
    touch(tmp_path, f"trimaps/{unicodedata.normalize('NFD', 'née')}.png")
    assert len(find_pairs(tmp_path)) == 1


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/c.heic", "trimaps/c.png")
    with pytest.raises(InputError, match=r"c\.heic has none of the suffixes \.png"):
        find_pairs(tmp_path)


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="no images"):
        find_pairs(tmp_path, tmp_path)


def write_pair(root: Path, image: np.ndarray, trimap: np.ndarray, alpha: np.ndarray | None = None) -> Pair:
    for name, array in (("image", image), ("trimap", trimap), ("alpha", alpha)):
        if array is not None:
            write_image(root / f"{name}.png", array)
    files = root / "image.png", root / "trimap.png"
    return Pair("x", *files, None if alpha is None else root / "alpha.png")


def test_arrays_are_read_in_8_bits(tmp_path: Path) -> None:
    image, alpha = np.full((3, 4, 3), 257 * 99 + 128, np.uint16), np.full((3, 4), 257 * 99 + 129, np.uint16)
    sample = read_sample(write_pair(tmp_path, image, TRIMAP, alpha))
    assert (sample.image == 99).all()
    assert sample.alpha is not None
    assert (sample.alpha == 100).all()
    np.testing.assert_array_equal(sample.trimap, TRIMAP)
    assert sample.name == "x"


def test_arrays_have_one_size(tmp_path: Path) -> None:
    image = np.zeros((3, 4, 3), np.uint8)
    pair = write_pair(tmp_path, image, TRIMAP, np.zeros((4, 3), np.uint8))
    with pytest.raises(InputError, match="image 4×3 px, trimap 4×3 px, alpha 3×4 px"):
        read_sample(pair)


def test_a_trimap_without_unknown_pixels_is_no_sample(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.zeros((3, 4, 3), np.uint8), np.full((3, 4), 255, np.uint8))
    with pytest.raises(InputError, match="no unknown pixels"):
        read_sample(pair)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_trimap_of_the_pixels_before_exif_turns_them_is_explained(tmp_path: Path, turn: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    image, trimap = tmp_path / "p.jpg", tmp_path / "t.png"
    PIL.Image.new("RGB", (48, 32), (90, 120, 40)).save(image, exif=exif)
    PIL.Image.new("L", (48, 32), 128).save(trimap)
    with pytest.raises(InputError) as error:
        read_sample(Pair("p", image, trimap))
    assert "image 32×48 px, trimap 48×32 px" in str(error.value)
    assert "EXIF orientation" in str(error.value)
    assert "turn the trimap" in str(error.value)
    PIL.Image.new("L", (48, 31), 128).save(trimap)
    with pytest.raises(InputError) as error:
        read_sample(Pair("p", image, trimap))
    assert "EXIF" not in str(error.value)
