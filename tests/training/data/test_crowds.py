"""Crowds: copies of one foreground, and their colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dim.arrays import UInt8
from dim_training.data.crowds import DARKEST, MOST_COPIES, crowd
from dim_training.data.sources import Cutout

COLOUR = np.array((200, 120, 80))


def disc(radius: int, side: int = 256) -> Cutout:
    """Return a disc of COLOUR; colours where it is not would be seen if they leaked."""
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 3, side // 2), radius, 255, -1, cv2.LINE_AA)
    return Cutout(np.full((side, side, 3), COLOUR, np.uint8), alpha)


def parts(alpha: UInt8) -> int:
    return cv2.connectedComponents((alpha > 127).astype(np.uint8))[0] - 1


def test_a_crowd_has_several_copies() -> None:
    found = [parts(crowd(disc(4), np.random.default_rng(seed)).alpha) for seed in range(60)]
    assert max(found) == MOST_COPIES
    assert min(found) >= 1
    assert np.mean(found) > 2


def test_copies_are_whole_and_at_most_as_large() -> None:
    for seed in range(20):
        alpha = crowd(disc(4), np.random.default_rng(seed)).alpha / 255
        assert 0.1 * np.pi * 16 < alpha.sum() < 1.2 * MOST_COPIES * np.pi * 16


@pytest.mark.parametrize("seed", range(6))
def test_colours_are_the_foreground_s_or_darker_also_where_alpha_is_soft(seed: int) -> None:
    colours, alpha = crowd(disc(40), np.random.default_rng(seed))
    soft = colours[(alpha > 8) & (alpha < 247)].astype(int)
    assert len(soft) > 20
    assert (soft <= COLOUR + 1).all()
    assert (soft >= DARKEST * COLOUR - 3).all()
    # One brightness for all channels of a pixel.
    brightness = soft / COLOUR
    assert np.ptp(brightness, axis=1).max() < 0.05


def test_copies_cover_each_other_as_layers_do() -> None:
    half = Cutout(np.full((128, 128, 3), 99, np.uint8), np.full((128, 128), 128, np.uint8))
    values = set(np.unique(crowd(half, np.random.default_rng(1)).alpha[60:68, 60:68]).tolist())
    # 1 - (1 - a)^n of n layers.
    layers = [round(255 * (1 - (1 - 128 / 255) ** count)) for count in range(1, MOST_COPIES + 1)]
    assert all(min(abs(value - layer) for layer in layers) <= 1 for value in values)
    assert max(values) > 128


def test_the_same_generator_makes_the_same_crowd() -> None:
    first, second = (crowd(disc(20), np.random.default_rng(7)) for _ in range(2))
    assert (first.alpha == second.alpha).all()
    assert (first.colours == second.colours).all()


def test_an_empty_foreground_stays_empty() -> None:
    empty = Cutout(np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8))
    colours, alpha = crowd(empty, np.random.default_rng(0))
    assert colours.shape == (32, 48, 3)
    assert not alpha.any()
