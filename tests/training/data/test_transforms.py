"""Crop, flip, resize, trimap and composition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dim import trimap as trimaps
from dim_training.data import transforms
from dim_training.data.transforms import Layers


def _disc(height: int, width: int) -> transforms.UInt8:
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    return np.clip((min(height, width) / 4 - distance) * 40 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(700, 900), (200, 900), (50, 60)])
@pytest.mark.parametrize("side", [320, 640])
def test_crop_is_a_square_around_an_unknown_pixel(shape: tuple[int, int], side: int) -> None:
    alpha = _disc(*shape)
    colours = np.dstack([alpha] * 3)
    for seed in range(5):
        cut, cut_colours = transforms.crop_around_unknown(
            alpha, colours, sides=(side,), rng=np.random.default_rng(seed)
        )
        assert cut.shape == (side, side)
        assert np.array_equal(cut_colours[..., 0], cut)
        assert ((cut > 0) & (cut < 255)).any()


def test_crop_centre_is_unknown_where_the_window_fits() -> None:
    alpha = _disc(1000, 1200)
    cut, *_ = transforms.crop_around_unknown(alpha, sides=(320,), rng=np.random.default_rng(0))
    assert 0 < cut[160, 160] < 255


def test_crop_without_unknown_pixels_takes_the_corner() -> None:
    alpha = np.zeros((400, 400), np.uint8)
    alpha[0, 0] = 255
    cut, *_ = transforms.crop_around_unknown(alpha, sides=(320,), rng=np.random.default_rng(0))
    assert cut[0, 0] == 255


def test_flip_mirrors_half_of_the_time() -> None:
    alpha = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = [transforms.flip((alpha,), np.random.default_rng(seed))[0] for seed in range(60)]
    flipped = sum(np.array_equal(item, alpha[:, ::-1]) for item in found)
    kept = sum(np.array_equal(item, alpha) for item in found)
    assert flipped + kept == 60
    assert 15 < flipped < 45


def test_random_trimap_uses_the_drawn_sizes(golden: Callable[[str], dict[str, Any]]) -> None:
    arrays = golden("E_trimap")
    erode, dilate = arrays["random_seed7_erode_dilate"]

    class Drawn:
        values = iter((erode, dilate))

        def integers(self, low: int, high: int) -> int:
            assert (low, high) == (1, 30)
            return int(next(self.values))

    found = transforms.random_trimap(arrays["alpha"], (1, 29), Drawn())  # type: ignore[arg-type]
    assert np.array_equal(found, arrays["trimap_random_seed7"])


def test_random_trimap_is_right_about_what_it_knows() -> None:
    alpha = _disc(200, 200)
    for seed in range(20):
        trimap = transforms.random_trimap(alpha, (1, 29), np.random.default_rng(seed))
        assert (alpha[trimap == trimaps.FOREGROUND] == 255).all()
        assert (alpha[trimap == trimaps.BACKGROUND] == 0).all()
        assert (trimap[(alpha > 0) & (alpha < 255)] == trimaps.UNKNOWN).all()


def test_composite_is_not_rounded() -> None:
    one = np.ones((1, 1, 3), np.uint8)
    found = transforms.composite(Layers(200 * one, 100 * one, np.full((1, 1), 51, np.uint8)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 120, atol=1e-4)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.2])
def test_composites_are_linear_in_the_power_in_which_they_are_mixed(exponent: float) -> None:
    draw = np.random.default_rng(4)
    foreground, background = draw.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    alpha = draw.integers(0, 256, (8, 9), dtype=np.uint8)
    mixed = transforms.composite(Layers(foreground, background, alpha), exponent)
    share = alpha[..., None] / 255
    expected = share * (foreground / 255) ** exponent + (1 - share) * (background / 255) ** exponent
    assert mixed.dtype == np.float32
    np.testing.assert_allclose((mixed / 255) ** exponent, expected, atol=1e-5)
    np.testing.assert_allclose(mixed[alpha == 255], foreground[alpha == 255], atol=1e-2)
