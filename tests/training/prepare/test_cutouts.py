"""Cut-outs of photographs with alphas: foreground colours, and alphas solved again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.arrays import UInt8
from dim.errors import InputError
from dim_training.prepare.cutouts import prepare_cutouts, solved_alpha

FOREGROUND, BACKGROUND = np.array([40, 60, 200]), np.array([190, 160, 30])


def _photograph() -> tuple[UInt8, UInt8, UInt8]:
    """Return a body with thin strands on its right, its true alpha, and a blurred alpha as of a network."""
    alpha = np.zeros((96, 160), np.uint8)
    alpha[16:80, 20:70] = 255
    alpha[18:78:6, 70:90] = 255
    mix = alpha[..., None] / 255
    image = (FOREGROUND * mix + BACKGROUND * (1 - mix)).round().astype(np.uint8)
    return image, alpha, np.asarray(cv2.GaussianBlur(alpha, (0, 0), 3), np.uint8)


def _folders(root: Path, image: UInt8, alpha: UInt8) -> tuple[Path, Path, Path]:
    for name, content in (("images", image), ("alphas", alpha)):
        (root / name).mkdir()
        cv2.imwrite(str(root / name / "one.png"), content)
    return root / "images", root / "alphas", root / "cutouts"


def _cutout(folder: Path) -> UInt8:
    read = cv2.imread(str(folder / "one.png"), cv2.IMREAD_UNCHANGED)
    assert read is not None
    return np.asarray(read, np.uint8)


def test_solving_finds_the_strands_that_a_prediction_blurs() -> None:
    image, alpha, predicted = _photograph()
    solved = solved_alpha(image, predicted, source=Path("one.png"))
    errors = [np.abs(found.astype(float) - alpha).mean() for found in (solved, predicted)]
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.parametrize("value", [0, 100, 255])
def test_nothing_known_nothing_solved(value: int) -> None:
    image, _, _ = _photograph()
    with pytest.raises(InputError, match=r"one\.png.*\n.*more than 5 px from soft"):
        solved_alpha(image, np.full(image.shape[:2], value, np.uint8), source=Path("one.png"))


@pytest.mark.parametrize("solve", [False, True])
def test_cutouts_have_the_foreground_s_colours(tmp_path: Path, solve: bool) -> None:
    image, alpha, predicted = _photograph()
    images, alphas, output = _folders(tmp_path, image, predicted if solve else alpha)
    assert prepare_cutouts(images, alphas, output, solve=solve) == 1
    cutout = _cutout(output)
    assert np.abs(cutout[..., :3].astype(float) - FOREGROUND)[alpha == 255].max() < 12
    assert np.abs(cutout[..., 3].astype(float) - alpha).mean() < 2


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    image, alpha, _ = _photograph()
    images, alphas, output = _folders(tmp_path, image, alpha)
    prepare_cutouts(images, alphas, output)
    before = (output / "one.png").stat().st_mtime_ns
    assert prepare_cutouts(images, alphas, output) == 1
    assert (output / "one.png").stat().st_mtime_ns == before


def test_other_sizes_and_no_pairs(tmp_path: Path) -> None:
    image, alpha, _ = _photograph()
    images, alphas, output = _folders(tmp_path, image, alpha[:-1])
    with pytest.raises(InputError, match="two images of one size"):
        prepare_cutouts(images, alphas, output)
    (alphas / "one.png").rename(alphas / "other.png")
    with pytest.raises(InputError, match="no common file names"):
        prepare_cutouts(images, alphas, output)


def test_pairs_have_the_same_sub_folder(tmp_path: Path) -> None:
    image, alpha, _ = _photograph()
    images, alphas = tmp_path / "images", tmp_path / "alphas"
    for folder, content in ((images / "a", image), (images / "b", image[::-1]), (alphas / "b", alpha[::-1])):
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "one.png"), content)
    assert prepare_cutouts(images, alphas, tmp_path / "cutouts") == 1
    written = [path.relative_to(tmp_path) for path in (tmp_path / "cutouts").rglob("*.png")]
    assert written == [Path("cutouts/b/one.png")]
    cv2.imwrite(str(alphas / "b" / "one.bmp"), alpha)
    with pytest.raises(InputError, match="2 files for b/one"):
        prepare_cutouts(images, alphas, tmp_path / "other")


def test_a_bad_pair_does_not_stop_the_others(tmp_path: Path) -> None:
    image, alpha, _ = _photograph()
    images, alphas, output = _folders(tmp_path, image, alpha)
    cv2.imwrite(str(images / "bad.png"), image)
    (alphas / "bad.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"(?s)1 of 2 pairs.*bad\.png"):
        prepare_cutouts(images, alphas, output)
    assert [path.name for path in output.iterdir()] == ["one.png"]
