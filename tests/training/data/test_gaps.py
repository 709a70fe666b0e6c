"""Gaps: small holes through a foreground, and creases that are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dim_training.data.gaps import OPAQUE, pierce
from dim_training.data.sources import Cutout

COLOUR = (200, 120, 80)


def disc(side: int = 256) -> Cutout:
    """Return a disc of COLOUR with a soft border."""
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), side // 3, 255, -1, cv2.LINE_AA)
    colours = np.broadcast_to(np.array(COLOUR, np.uint8), (side, side, 3)).copy()
    return Cutout(colours, cv2.GaussianBlur(alpha, (0, 0), 3).astype(np.uint8))


def opened(seed: int) -> tuple[Cutout, Cutout]:
    """Return a disc before and after."""
    given = disc()
    return given, pierce(given, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(12))
def test_alpha_only_falls(seed: int) -> None:
    given, found = opened(seed)
    assert (found.alpha <= given.alpha).all()


@pytest.mark.parametrize("seed", range(12))
def test_colours_only_darken(seed: int) -> None:
    given, found = opened(seed)
    assert (found.colours <= given.colours).all()
    assert found.colours.max() > 100


def test_holes_are_open_and_small() -> None:
    """Of forty discs nearly all have holes, most of them open in their middle, and none is cut to pieces."""
    lost, lowest = [], []
    for seed in range(40):
        given, found = opened(seed)
        inside = found.alpha[given.alpha >= OPAQUE]
        lost.append((1 - inside / 255).mean())
        lowest.append(inside.min())
    assert sum(share > 0 for share in lost) > 36
    assert 0.005 < np.median(lost) < 0.1
    assert max(lost) < 0.7
    assert sum(alpha < 30 for alpha in lowest) > 25


def test_a_dark_place_may_be_no_hole() -> None:
    creased = 0
    for seed in range(40):
        given, found = opened(seed)
        dark = (found.colours[..., 0] < 0.6 * COLOUR[0]) & (given.alpha >= OPAQUE)
        creased += bool((dark & (found.alpha == given.alpha)).sum() > 10)
    assert creased > 15


def test_the_same_generator_makes_the_same_gaps() -> None:
    (_, first), (_, second) = opened(7), opened(7)
    assert (first.alpha == second.alpha).all()
    assert (first.colours == second.colours).all()


def test_a_foreground_without_opaque_pixels_stays() -> None:
    faint = Cutout(np.full((32, 48, 3), 90, np.uint8), np.full((32, 48), 200, np.uint8))
    found = pierce(faint, np.random.default_rng(0))
    assert (found.alpha == faint.alpha).all()
    assert (found.colours == faint.colours).all()
