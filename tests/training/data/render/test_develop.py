"""From light to straight 8-bit colours; no Blender."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dim_training.data.render.develop import composite, develop, encode_srgb, unpremultiply


def _soft_disc(side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side / 2
    return np.clip(0.5 - (np.hypot(x, y) - side / 4) / 16, 0, 1)


def test_one_colour_stays_that_colour_wherever_anything_is_covered() -> None:
    alpha, colour = _soft_disc(), np.array([0.4, 0.1, 0.05])
    layers = np.dstack([alpha[..., None] * colour, alpha])
    straight = unpremultiply(layers)
    np.testing.assert_allclose(
        straight[alpha > 0], np.broadcast_to(colour, (int((alpha > 0).sum()), 3)), rtol=1e-6
    )
    rgba = develop(layers, layers[..., :3], alpha, exposure=0.5)
    shown = rgba[..., :3][alpha > 0.02]
    assert np.ptp(shown.astype(int), axis=0).max() <= 2
    np.testing.assert_array_equal(rgba[..., 3], np.round(255 * alpha))


def test_the_brightest_part_gets_the_exposure() -> None:
    alpha = np.ones((16, 16))
    layers = np.dstack([np.full((16, 16, 3), 0.02), alpha])
    rgba = develop(layers, layers[..., :3], alpha, exposure=0.5)
    assert rgba[..., :3].astype(int) == pytest.approx(np.round(255 * encode_srgb(np.array(0.5))), abs=1)


def test_colours_of_few_paths_come_from_the_neighbours() -> None:
    rng = np.random.default_rng(0)
    hits = rng.binomial(12, 0.05, (64, 64)) / 12
    noisy = np.dstack([hits[..., None] * np.array([0.3, 0.2, 0.1]), hits])
    np.testing.assert_allclose(unpremultiply(noisy), np.broadcast_to([0.3, 0.2, 0.1], (64, 64, 3)), rtol=1e-6)


def test_nothing_in_the_picture_is_developed_without_a_warning() -> None:
    with np.errstate(all="raise"):
        rgba = develop(np.zeros((8, 8, 4)), np.zeros((8, 8, 3)), np.zeros((8, 8)), exposure=0.5)
    assert not rgba.any()


def test_srgb_matches_the_standard() -> None:
    levels = np.array([0, 0.0031308, 0.18, 0.5, 1, 2])
    np.testing.assert_allclose(encode_srgb(levels), [0, 0.04045, 0.46135, 0.73536, 1, 1], atol=1e-4)


def test_composites_mix_by_alpha() -> None:
    rgba = np.dstack([np.full((4, 4, 3), 200), np.full((4, 4), 51)]).astype(np.uint8)
    np.testing.assert_array_equal(composite(rgba, np.zeros((4, 4, 3), np.uint8)), 40)
    assert cv2.countNonZero(composite(rgba, np.full((4, 4, 3), 100, np.uint8))[..., 0] - 120) == 0
