"""Cut-outs and composites: arithmetic, depths, and the optional estimator."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dim import cutout
from dim.errors import InputError, MissingExtraError


def test_halves_go_to_the_even_neighbour() -> None:
    alpha = np.array([[0.5, 1.5, 2.5, 254.5]], np.float64) / 255
    np.testing.assert_array_equal(cutout.quantise(alpha, 8), [[0, 2, 2, 254]])


@pytest.mark.parametrize("depth", [8, 16])
def test_the_ends_of_alpha_are_exact(depth: cutout.Depth) -> None:
    levels = cutout.quantise(np.array([[0.0, 1.0]], np.float32), depth)
    assert levels.tolist() == [[0, 2**depth - 1]]
    assert cutout.depth_of(levels) == depth


def test_depths_convert_and_come_back() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    deep = cutout.to_depth(image, 16)
    assert deep.max() == 65535
    np.testing.assert_array_equal(cutout.to_depth(deep, 8), image)
    everything = np.arange(65536, dtype=np.uint16)[None]
    np.testing.assert_array_equal(cutout.eight_bits(everything), np.rint(everything / 257))


def test_rgba_holds_straight_alpha() -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    cut = cutout.rgba(image, np.array([[0, 1], [0.5, 0.25]], np.float32))
    assert cut[..., :3].min() == 200
    assert cut[..., 3].tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_composite_is_the_formula(dtype: type) -> None:
    draw = np.random.default_rng(0)
    foreground = draw.integers(0, np.iinfo(dtype).max + 1, (300, 5, 3), dtype)
    alpha = draw.random((300, 5)).astype(np.float32)
    scale = np.iinfo(dtype).max // 255
    expected = alpha[..., None] * foreground + (1 - alpha[..., None]) * np.array([255, 0, 128]) * scale
    found = cutout.composite(foreground, alpha, (255, 0, 128))
    assert found.dtype == dtype
    assert np.abs(found - expected).max() < 0.51
    background = np.full_like(foreground, 7)
    np.testing.assert_array_equal(cutout.composite(foreground, np.zeros_like(alpha), background), background)
    np.testing.assert_array_equal(cutout.composite(foreground, np.ones_like(alpha), background), foreground)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (3, 3), (20, 30)])
def test_a_covering_background_has_the_size(size: tuple[int, int]) -> None:
    background = np.full((20, 30, 3), 9, np.uint8)
    found = cutout.covering(background, *size)
    assert found.shape == (*size, 3)
    assert (found == 9).all()


def test_colours() -> None:
    assert cutout.parse_colour("#0aFF80") == (10, 255, 128)
    for text in ("red", "#12345", "#1234567", "0aff80"):
        with pytest.raises(InputError, match="#RRGGBB"):
            cutout.parse_colour(text)


def test_sizes_must_agree() -> None:
    image, alpha = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.float32)
    for make in (cutout.rgba, cutout.estimate_foreground):
        with pytest.raises(InputError, match="differ in size"):
            make(image, alpha)
    with pytest.raises(InputError, match="differ in size"):
        cutout.composite(image, alpha, (0, 0, 0))


def test_without_pymatting_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[cutout\]"):
        cutout.require_estimator()


@pytest.mark.slow
def test_estimated_colours_are_those_of_the_foreground() -> None:
    pytest.importorskip("pymatting")
    alpha = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    red, blue = np.array([220.0, 30, 30]), np.array([20.0, 20, 200])
    mixed = (alpha[..., None] * red + (1 - alpha[..., None]) * blue).round().astype(np.uint8)
    found = cutout.estimate_foreground(mixed, alpha)
    assert found.dtype == np.uint8
    assert np.abs(found[:, 16:].astype(float) - red).max() < 40
    assert np.abs(mixed[:, 16:].astype(float) - red).max() > 100
