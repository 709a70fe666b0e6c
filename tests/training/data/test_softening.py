"""Soft borders: what is thinned and blurred, and that colours stay those of the foreground."""

from __future__ import annotations

import numpy as np

from dim.arrays import UInt8
from dim_training.data.softening import blur, soften, thin
from dim_training.data.sources import Cutout


def half_plane(side: int = 64) -> UInt8:
    alpha = np.zeros((side, side), np.uint8)
    alpha[:, side // 2 :] = 255
    return alpha


def soft_share(alpha: UInt8) -> float:
    return float(((alpha > 5) & (alpha < 250)).mean())


def fringed() -> UInt8:
    """Return a half plane with strands of one pixel, an eighth of the area beside it."""
    alpha = half_plane()
    alpha[::8, 8:32] = 255
    return alpha


def test_strands_become_thinner_towards_their_tips_and_the_inside_stays_opaque() -> None:
    thinned = thin(fringed(), fringe=4.0, strength=0.8, thickness=5)
    # The tips lie beyond the reach of the inside.
    strand = thinned[32, 18:].astype(int)
    assert (np.diff(strand) >= 0).all()
    assert strand[0] < 0.45 * 255 < strand[14]
    assert (thinned[fringed() == 0] == 0).all()
    assert (thinned[:, 36:] == 255).all()
    assert (thin(fringed(), fringe=4.0, strength=0.0, thickness=5) == fringed()).all()


def test_what_is_as_wide_as_a_wire_stays_opaque() -> None:
    alpha = half_plane()
    alpha[8:11, :32], alpha[30:37, :32] = 255, 255
    thinned = thin(alpha, fringe=8.0, strength=0.8, thickness=7)
    assert (thinned[9, 8:24] < 0.7 * 255).all()
    assert (thinned[33, 8:24] > 0.95 * 255).all()
    # The borders of the wide strand lose a little: they are smoothed towards the gap.
    assert (thinned[30, 8:24] > 0.7 * 255).all()
    assert (thin(alpha, fringe=8.0, strength=0.8, thickness=3)[9, 8:24] > 0.8 * 255).all()


def test_a_net_has_no_inside_and_stays_opaque() -> None:
    net = np.zeros((64, 64), np.uint8)
    net[::8], net[:, ::8] = 255, 255
    assert (thin(net, fringe=8.0, strength=0.9, thickness=7) == net).all()


def test_blurred_colours_are_the_foreground_s_alone() -> None:
    alpha = half_plane()
    foreground = np.zeros((64, 64, 3), np.uint8)
    foreground[:, 32:] = (200, 40, 90)
    # Colours where nothing is covered must not leak into the border.
    foreground[:, :32] = (0, 255, 0)
    colours, blurred = blur(foreground, alpha, 2.0)
    border = (blurred > 0) & (blurred < 255)
    assert border[32].sum() > 6
    assert np.abs(colours[border].astype(int) - (200, 40, 90)).max() <= 1
    assert (colours[blurred == 0] == (0, 255, 0)).all()
    assert abs(int(blurred[32, 31]) + int(blurred[32, 32]) - 255) <= 1


def test_borders_become_softer() -> None:
    cutout = Cutout(np.full((64, 64, 3), 99, np.uint8), fringed())
    found = [soften(cutout, np.random.default_rng(seed)) for seed in range(60)]
    shares = [soft_share(each.alpha) for each in found]
    # Both changes are left out in a fifth of the samples.
    assert 3 <= shares.count(0.0) <= 24
    assert np.mean(shares) > 0.05
    again = soften(cutout, np.random.default_rng(3))
    assert (again.alpha == found[3].alpha).all()
