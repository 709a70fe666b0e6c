"""Patches: parts of a foreground in another colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dim_training.data.patches import SHARES, patch
from dim_training.data.sources import Cutout

COLOUR = np.array((200, 120, 80))


def disc(side: int = 256, *, grain: float = 0.0) -> Cutout:
    """Return a disc of COLOUR with a soft border."""
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), side // 3, 255, -1, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, grain, (side, side, 1)) if grain else 0
    colours = np.broadcast_to(COLOUR, (side, side, 3)) + noise
    return Cutout(
        np.clip(colours, 0, 255).astype(np.uint8), cv2.GaussianBlur(alpha, (0, 0), 3).astype(np.uint8)
    )


@pytest.mark.parametrize("seed", range(6))
def test_alpha_stays(seed: int) -> None:
    given = disc()
    assert (patch(given, np.random.default_rng(seed)).alpha == given.alpha).all()


@pytest.mark.parametrize("seed", range(12))
def test_a_plain_foreground_gets_one_further_colour_and_mixtures_with_it(seed: int) -> None:
    colours = patch(disc(), np.random.default_rng(seed)).colours.reshape(-1, 3).astype(np.float64)
    moved = colours - COLOUR
    farthest = moved[np.linalg.norm(moved, axis=1).argmax()]
    # Every colour lies on the line from the old colour to the new one.
    along = np.clip(moved @ farthest / (farthest @ farthest), 0, 1)
    assert np.linalg.norm(moved - along[:, None] * farthest, axis=1).max() < 1.5


def test_patches_cover_a_part_of_the_canvas() -> None:
    shares = []
    for seed in range(40):
        given = disc()
        drawn = patch(given, np.random.default_rng(seed)).colours
        shares.append((drawn != given.colours).any(axis=-1).mean())
    # Soft borders add to what lies above the threshold.
    assert min(shares) > SHARES[0] - 0.05
    assert max(shares) < 1
    assert np.ptp(shares) > 0.25


def test_some_colours_are_gray_and_some_are_not() -> None:
    spread = []
    for seed in range(40):
        drawn = patch(disc(), np.random.default_rng(seed)).colours.reshape(-1, 3).astype(int)
        new = drawn[np.abs(drawn - COLOUR).sum(axis=1).argmax()]
        spread.append(np.ptp(new))
    assert 8 < sum(s <= 1 for s in spread) < 32


def test_texture_stays_in_the_new_colour() -> None:
    given = disc(grain=6)
    grain = (given.colours[..., 0].astype(float) - COLOUR[0])[96:160, 96:160].ravel()
    kept = []
    for seed in range(20):
        drawn = patch(given, np.random.default_rng(seed)).colours[96:160, 96:160].astype(float)
        fine = drawn[..., 1] - cv2.GaussianBlur(drawn[..., 1], (0, 0), 8)
        kept.append(np.corrcoef(fine.ravel(), grain)[0, 1])
    assert np.median(kept) > 0.5


def test_the_same_generator_makes_the_same_patches() -> None:
    first, second = (patch(disc(grain=6), np.random.default_rng(7)) for _ in range(2))
    assert (first.colours == second.colours).all()


def test_an_empty_foreground_stays_empty() -> None:
    empty = Cutout(np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8))
    colours, alpha = patch(empty, np.random.default_rng(0))
    assert colours.shape == (32, 48, 3)
    assert not alpha.any()
