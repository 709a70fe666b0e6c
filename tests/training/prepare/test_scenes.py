"""Scenes to validate with: exact alphas, both trimaps, functions of seed and name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dim.errors import InputError
from dim.images import read_alpha, read_image
from dim_runtime.images.pairs import find_pairs, read_sample
from dim_training.cli.app import app
from dim_training.data.sources import Cutout
from dim_training.prepare.scenes import add_band, compose_scenes, reduce


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    draw = np.random.default_rng(0)
    foregrounds, backgrounds = tmp_path / "foregrounds", tmp_path / "backgrounds"
    rows, columns = np.mgrid[:96, :120]
    alpha = np.clip((30 - np.hypot(rows - 48, columns - 60)) * 30, 0, 255).astype(np.uint8)
    for folder, name in ((foregrounds, "900000_disc"), (foregrounds, "900001_disc")):
        folder.mkdir(exist_ok=True)
        rgba = np.dstack([np.full((96, 120, 3), (10, 200, 30), np.uint8), alpha])
        cv2.imwrite(str(folder / f"{name}.png"), rgba)
    backgrounds.mkdir()
    cv2.imwrite(str(backgrounds / "a.png"), draw.integers(0, 60, (90, 150, 3), dtype=np.uint8))
    return foregrounds, backgrounds


def test_scenes_are_pairs_with_their_exact_alpha(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert compose_scenes(*folders, tmp_path / "scenes") == 2
    pairs = find_pairs(tmp_path / "scenes", alphas=True)
    assert [pair.name for pair in pairs] == ["900000_disc", "900001_disc"]
    truth = cv2.imread(str(folders[0] / "900000_disc.png"), cv2.IMREAD_UNCHANGED)[..., 3]
    for pair in pairs:
        sample = read_sample(pair)
        np.testing.assert_array_equal(sample.alpha, truth)
        assert (sample.trimap[(truth > 0) & (truth < 255)] == 128).all()
    # The foreground is green, the background dark.
    image = read_image(pairs[0].image)
    assert image[truth == 255][:, 1].mean() > image[truth == 0].mean() + 50


def test_wide_trimaps_leave_more_unknown(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    compose_scenes(*folders, scenes)
    for name in ("900000_disc", "900001_disc"):
        narrow, wide = (read_alpha(scenes / folder / f"{name}.png") for folder in ("trimaps", "trimaps_wide"))
        assert (wide == 128).sum() > (narrow == 128).sum() > 0


def test_a_scene_is_a_function_of_seed_and_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        compose_scenes(*folders, tmp_path / name, seed=seed)
    files = [tmp_path / name / "images" / "900001_disc.png" for name in ("first", "again", "other")]
    first, again, other = (path.read_bytes() for path in files)
    assert first == again != other
    # Another set of foregrounds leaves the scenes of the others as they are.
    (folders[0] / "900000_disc.png").unlink()
    compose_scenes(*folders, tmp_path / "fewer")
    assert (tmp_path / "fewer" / "images" / "900001_disc.png").read_bytes() == first


def test_softened_scenes_have_other_alphas_and_the_same_background(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    plain, softened = tmp_path / "plain", tmp_path / "softened"
    compose_scenes(*folders, plain)
    command = ["compose", *map(str, folders), "-o", str(softened), "--softened", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    changed = []
    for name in ("900000_disc", "900001_disc"):
        hard, soft = (read_alpha(scenes / "alphas" / f"{name}.png") for scenes in (plain, softened))
        images = [read_image(scenes / "images" / f"{name}.png") for scenes in (plain, softened)]
        outside = (hard == 0) & (soft == 0)
        np.testing.assert_array_equal(*(image[outside] for image in images))
        changed.append((hard != soft).any())
    assert any(changed)


def test_patched_scenes_have_other_colours_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plain, patched = tmp_path / "plain", tmp_path / "patched"
    compose_scenes(*folders, plain)
    command = ["compose", *map(str, folders), "-o", str(patched), "--patched", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    for name in ("900000_disc", "900001_disc"):
        for folder in ("alphas", "trimaps", "trimaps_wide"):
            files = [scenes / folder / f"{name}.png" for scenes in (plain, patched)]
            assert files[0].read_bytes() == files[1].read_bytes()
        alpha = read_alpha(plain / "alphas" / f"{name}.png")
        images = [read_image(scenes / "images" / f"{name}.png") for scenes in (plain, patched)]
        changed = (images[0] != images[1]).any(-1)
        assert not changed[alpha == 0].any()
        assert changed[alpha == 255].mean() > 0.1


def test_larger_foregrounds_are_reduced_without_what_is_invisible() -> None:
    colours = np.zeros((90, 120, 3), np.uint8)
    colours[:, :45] = (10, 200, 30)
    colours[:, 45:] = (255, 0, 255)
    alpha = np.where(np.arange(120) < 45, np.uint8(255), np.uint8(0)) * np.ones((90, 1), np.uint8)
    small = reduce(Cutout(colours, alpha), 40)
    assert small.alpha.shape == (30, 40)
    np.testing.assert_array_equal(small.alpha[0], [255] * 15 + [0] * 25)
    assert (small.colours[small.alpha > 0] == (10, 200, 30)).all()
    # Half of a column is visible: its colour is the visible one, its alpha the covered share.
    border = reduce(Cutout(colours[:, 15:], alpha[:, 15:]), 20)
    mixed = (border.alpha > 0) & (border.alpha < 255)
    assert mixed.any()
    assert (border.colours[mixed] == (10, 200, 30)).all()


def test_foregrounds_up_to_the_largest_side_stay(folders: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["compose", *map(str, folders), "-o", str(tmp_path / "same"), "--largest-side", "120"]
    assert CliRunner().invoke(app, command).exit_code == 0
    compose_scenes(*folders, tmp_path / "plain")
    compose_scenes(*folders, tmp_path / "small", largest_side=60)
    for name in ("900000_disc", "900001_disc"):
        plain, same, small = (
            read_alpha(tmp_path / scenes / "alphas" / f"{name}.png") for scenes in ("plain", "same", "small")
        )
        np.testing.assert_array_equal(plain, same)
        assert small.shape == (48, 60)
        # The disc covers the same share of the image.
        assert small.mean() == pytest.approx(plain.mean(), abs=0.5)


def test_scenes_mixed_in_light_differ_where_alpha_is_soft_alone(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    values, light = tmp_path / "values", tmp_path / "light"
    compose_scenes(*folders, values)
    command = ["compose", *map(str, folders), "-o", str(light), "--exponents", "2", "2.2"]
    assert CliRunner().invoke(app, command).exit_code == 0
    for name in ("900000_disc", "900001_disc"):
        alpha = read_alpha(values / "alphas" / f"{name}.png")
        for folder in ("alphas", "trimaps", "trimaps_wide"):
            files = [scenes / folder / f"{name}.png" for scenes in (values, light)]
            assert files[0].read_bytes() == files[1].read_bytes()
        images = [read_image(scenes / "images" / f"{name}.png") for scenes in (values, light)]
        changed = np.abs(images[0].astype(int) - images[1]).max(-1)
        assert changed[(alpha == 0) | (alpha == 255)].max() <= 1
        assert changed[(alpha > 100) & (alpha < 150)].mean() > 5


def test_exponents_are_in_order(folders: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["compose", *map(str, folders), "-o", str(tmp_path / "new"), "--exponents", "2", "1"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, InputError)
    assert result.exception.expected == "two numbers from 1 to 3, the smaller one first"


def test_earlier_scenes_are_not_mixed_in(folders: tuple[Path, Path], tmp_path: Path) -> None:
    foregrounds, backgrounds = folders
    command = ["compose", str(foregrounds), str(backgrounds), "-o", str(tmp_path / "scenes")]
    done = CliRunner().invoke(app, command)
    assert "2 scenes" in done.output
    with pytest.raises(InputError, match="new folder"):
        compose_scenes(foregrounds, backgrounds, tmp_path / "scenes")


def test_a_failure_leaves_no_scenes_behind(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "900002_torn.png").write_bytes((folders[0] / "900001_disc.png").read_bytes()[:-40])
    with pytest.raises(InputError, match="900002_torn"):
        compose_scenes(*folders, tmp_path / "scenes")
    assert not (tmp_path / "scenes").exists()


def test_scenes_never_lie_among_their_images(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        with pytest.raises(InputError, match="among its images"):
            compose_scenes(*folders, folder / "scenes")


def test_two_foregrounds_of_one_name_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    image = cv2.imread(str(folders[0] / "900000_disc.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folders[0] / "900000_disc.webp"), image)
    with pytest.raises(InputError, match="one scene"):
        compose_scenes(*folders, tmp_path / "scenes")


def test_a_band_makes_known_foreground_of_the_foregrounds_colours(tmp_path: Path) -> None:
    folder, backgrounds = tmp_path / "foregrounds", tmp_path / "backgrounds"
    folder.mkdir()
    backgrounds.mkdir()
    cv2.imwrite(str(backgrounds / "a.png"), np.zeros((400, 400, 3), np.uint8))
    net = np.zeros((400, 400), np.uint8)
    net[::40] = net[:, ::40] = 200
    solid = np.zeros((400, 400), np.uint8)
    solid[100:300, 100:300] = 255
    for name, alpha in (("net", net), ("solid", solid)):
        rgba = np.dstack([np.where(alpha[..., None] > 0, np.uint8((10, 200, 30)), np.uint8(99)), alpha])
        cv2.imwrite(str(folder / f"{name}.png"), rgba)
    for scenes, band in (("plain", False), ("bands", True)):
        compose_scenes(folder, backgrounds, tmp_path / scenes, band=band)
    read = {
        (scenes, kind): cv2.imread(str(tmp_path / scenes / "alphas" / f"{kind}.png"), cv2.IMREAD_GRAYSCALE)
        for scenes in ("plain", "bands")
        for kind in ("net", "solid")
    }
    np.testing.assert_array_equal(read["plain", "net"], net)
    # A foreground with a solid part stays the same.
    np.testing.assert_array_equal(read["bands", "solid"], solid)
    banded = read["bands", "net"]
    added = banded != net
    assert 0.15 < (banded == 255).mean() < 0.25
    assert (banded[added] == 255).all()
    for trimaps in ("trimaps", "trimaps_wide"):
        assert (read_alpha(tmp_path / "bands" / trimaps / "net.png") == 255).any()


def test_the_colours_of_a_band_are_the_foregrounds() -> None:
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, 30:33] = 128
    colours = np.full((64, 64, 3), 99, np.uint8)
    colours[alpha > 0] = (10, 200, 30)
    found = add_band(Cutout(colours, alpha), np.random.default_rng(3))
    assert (found.colours[found.alpha > 0] == (10, 200, 30)).all()
    np.testing.assert_array_equal(found.alpha[found.alpha < 255], alpha[found.alpha < 255])
