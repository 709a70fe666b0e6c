"""Images that Blender renders: exact alpha, straight colours, the same bytes again, resumed runs.

They run in an interpreter that has bpy, named by ``DIM_RENDER_PYTHON``, or in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[4]
PROGRAMS = Path(__file__).with_name("known_geometry.py")
QUARTERS = (
    ("red", slice(2, 13), slice(2, 13)),
    ("green", slice(2, 13), slice(19, 30)),
    ("blue", slice(19, 30), slice(2, 13)),
    ("white", slice(19, 30), slice(19, 30)),
)
"""Parts of the picture of known_geometry.py: colour, rows and columns of pixels."""
PACKAGES = [str(ROOT / folder) for folder in ("dim", "runtime", "training")]


@pytest.fixture(scope="module")
def blender() -> Callable[..., str]:
    """Run a Python file or module, with arguments, where bpy is; return what it prints."""
    interpreter = os.environ.get("DIM_RENDER_PYTHON")
    if interpreter is None:
        if find_spec("bpy") is None:
            pytest.skip("bpy is not installed, and DIM_RENDER_PYTHON names no interpreter that has it")
        interpreter = sys.executable

    def run(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PACKAGES)}
        done = subprocess.run(
            [interpreter, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def known(blender: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Return the scenes of known_geometry.py: name to RGBA, or to RGB for a background."""
    folder = tmp_path_factory.mktemp("known")
    blender(PROGRAMS, folder)
    found = {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in folder.glob("*.png")}
    return {name: image[..., [2, 1, 0, 3][: image.shape[2]]] for name, image in found.items()}


@pytest.mark.slow
def test_a_square_covers_exactly_its_pixels(known: dict[str, np.ndarray]) -> None:
    alpha = known["square"][..., 3] / 255
    # The square's side is 16.5 pixels of 32: its borders pass through pixels 7 and 24, a quarter covered.
    # The pixel filter, 1.5 pixels wide, blurs the borders; it does not change what they cover.
    assert (alpha[9:23, 9:23] == 1).all()
    assert not alpha[:6].any()
    assert not alpha[:, 26:].any()
    np.testing.assert_allclose(alpha[9:23].sum(1), 16.5, atol=0.15)
    np.testing.assert_allclose(alpha[:, 9:23].sum(0), 16.5, atol=0.15)
    np.testing.assert_allclose(alpha[9:23, [7, 24]], 0.25, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disc", "blurred disc", "moved disc"])
def test_a_disc_covers_its_area_however_it_is_blurred(known: dict[str, np.ndarray], name: str) -> None:
    alpha = known[name][..., 3] / 255
    assert alpha.sum() == pytest.approx(np.pi * 8**2, rel=0.02)
    soft = ((alpha > 0.02) & (alpha < 0.98)).sum()
    assert soft > 100 if name != "disc" else soft < 100


@pytest.mark.slow
def test_opacity_is_alpha(known: dict[str, np.ndarray]) -> None:
    alpha = known["half opaque"][10:22, 10:22, 3] / 255
    assert alpha.mean() == pytest.approx(0.4, abs=0.01)
    assert alpha.std() < 0.04


@pytest.mark.slow
def test_a_picture_stands_upright_in_its_colours(known: dict[str, np.ndarray]) -> None:
    image = known["picture"].astype(int)
    assert image.shape == (32, 32, 3)
    quarters = {name: image[rows, columns].reshape(-1, 3).mean(0) for name, rows, columns in QUARTERS}
    assert [int(np.argmax(quarters[name])) for name in ("red", "green", "blue")] == [0, 1, 2]
    assert np.ptp(quarters["white"]) < 8
    assert all(np.ptp(quarters[name]) > 60 for name in ("red", "green", "blue"))


@pytest.mark.slow
def test_a_hair_thinner_than_a_pixel_covers_its_width(known: dict[str, np.ndarray]) -> None:
    alpha = known["hair"][..., 3] / 255
    # 24 pixels long, a fifth of a pixel wide.
    assert alpha.sum() == pytest.approx(24 * 0.2, rel=0.06)
    assert 0.05 < alpha.max() < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blurred disc", "moved disc", "half opaque", "hair"])
def test_colours_do_not_darken_where_alpha_is_small(known: dict[str, np.ndarray], name: str) -> None:
    image = known[name].astype(float)
    colours, alpha = image[..., :3], image[..., 3] / 255
    strong = alpha > 0.8 * alpha.max()
    expected = colours[strong].mean(0)
    for low, high in ((0.02, 0.1), (0.1, 0.4), (0.4, 0.8)):
        chosen = (alpha > low) & (alpha < high)
        if chosen.sum() > 10:
            np.testing.assert_allclose(colours[chosen].mean(0), expected, atol=6)


@pytest.mark.slow
def test_the_command_renders_resumes_and_repeats_itself(blender: Callable[..., str], tmp_path: Path) -> None:
    options = ("--size", 32, "--samples", 2, "--alpha-samples", 16)

    def render(folder: str, seeds: str, *more: object) -> str:
        command = ("-m", "dim_training.cli", "render", "-o", tmp_path / folder, "--seeds", seeds)
        return blender(*command, *options, *more)

    assert "2 images rendered, 0 kept" in render("first", "20000:20002")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "first").glob("*.png")}
    printed = render("first", "20000:20003", "--processes", 2, "--contact-sheet", tmp_path / "sheet.png")
    assert "1 images rendered, 2 kept" in printed
    for name, time in kept.items():
        assert (tmp_path / "first" / name).stat().st_mtime_ns == time
    render("second", "20000:20002")
    for name in kept:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    index = [json.loads(line) for line in (tmp_path / "first" / "index.jsonl").read_text().splitlines()]
    assert sorted(entry["seed"] for entry in index) == [20_000, 20_001, 20_002]
    assert all((tmp_path / "first" / entry["file"]).is_file() for entry in index)
    assert not list((tmp_path / "first").glob(".*"))
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.slow
def test_backgrounds_are_opaque_pictures_and_do_not_mix_with_foregrounds(
    blender: Callable[..., str], tmp_path: Path
) -> None:
    command = ("-m", "dim_training.cli", "render", "--backgrounds", "--seeds", "20000:20001")
    options = ("--size", 32, "--samples", 2)
    for folder in ("first", "second"):
        assert "1 images rendered" in blender(*command, *options, "-o", tmp_path / folder)
    (path,) = (tmp_path / "first").glob("*.png")
    assert path.name == "020000_background.png"
    assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image.shape == (32, 32, 3)
    assert image.std() > 10
    assert json.loads((tmp_path / "first" / "render.json").read_text())["kind"] == "backgrounds"
    with pytest.raises(AssertionError, match="cannot add to"):
        blender(
            "-m", "dim_training.cli", "render", *options, "--seeds", "20000:20001", "-o", tmp_path / "first"
        )
