"""Soft borders: what is thinned and blurred, and that colours stay those of the foreground."""

from __future__ import annotations

import numpy as np
import pytest

from dim.arrays import UInt8
from dim_training.config import DataConfig
from dim_training.data.dataset import build_scenes
from dim_training.data.softening import blur, soften, thin
from dim_training.data.transforms import Layers


def half_plane(side: int = 64) -> UInt8:
    alpha = np.zeros((side, side), np.uint8)
    alpha[:, side // 2 :] = 255
    return alpha


def soft_share(alpha: UInt8) -> float:
    return float(((alpha > 5) & (alpha < 250)).mean())


def test_a_border_thins_out_and_the_inside_stays_opaque() -> None:
    thinned = thin(half_plane(), fringe=4.0, strength=0.8)
    row = thinned[32].astype(int)
    assert (row[:32] == 0).all()
    # Half of the surroundings are covered at the border: 1 - 0.8 · (1 - 0.5 / 0.95), half a pixel away.
    assert 0.6 < row[32] / 255 < 0.7
    assert (np.diff(row) >= 0).all()
    assert (row[44:] == 255).all()


def test_a_lone_strand_loses_most() -> None:
    alpha = half_plane()
    alpha[10, :32] = 255
    thinned = thin(alpha, fringe=8.0, strength=0.8)
    assert thinned[10, 5] < 0.35 * 255
    assert (thin(alpha, fringe=8.0, strength=0.0) == alpha).all()


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


def test_borders_become_softer_and_the_background_stays() -> None:
    layers = Layers(np.full((64, 64, 3), 99, np.uint8), np.full((64, 64, 3), 7, np.uint8), half_plane())
    found = [soften(layers, np.random.default_rng(seed)) for seed in range(60)]
    shares = [soft_share(each.alpha) for each in found]
    assert all(each.background is layers.background for each in found)
    # Both changes are left out in a fifth of the samples.
    assert 3 <= shares.count(0.0) <= 24
    assert np.mean(shares) > 0.05
    again = soften(layers, np.random.default_rng(3))
    assert (again.alpha == found[3].alpha).all()


def test_a_recipe_without_it_keeps_its_samples() -> None:
    def drawn(**more: float) -> list[UInt8]:
        config = DataConfig(kind="procedural", size=64, crop_sides=(64,), photometric=True, **more)  # type: ignore[arg-type]
        scenes = build_scenes(config, 0)
        return [scenes.draw(i, np.random.default_rng((0, i))).layers.alpha for i in range(8)]

    plain, softened = drawn(), drawn(softened=1.0)
    assert all((a == b).all() for a, b in zip(plain, drawn(softened=0.0), strict=True))
    assert sum(map(soft_share, softened)) > sum(map(soft_share, plain))


def test_an_annotation_list_cannot_be_softened() -> None:
    with pytest.raises(ValueError, match="composed as they are"):
        DataConfig(kind="comp1k", softened=0.5)
