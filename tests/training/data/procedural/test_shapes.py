"""Procedural shapes: varied, and with the soft pixels that matting is about."""

from __future__ import annotations

import numpy as np

from dim_training.data.procedural import shapes


def test_alphas_have_background_and_soft_pixels() -> None:
    soft = []
    for seed in range(60):
        alpha = shapes.draw_shape(160, np.random.default_rng(seed)).alpha
        assert (alpha.shape, alpha.dtype) == ((160, 160), np.uint8)
        assert alpha.max() > 0, seed
        soft.append(((alpha > 0) & (alpha < 255)).mean())
    assert np.mean(soft) > 0.05
    assert np.std(soft) > 0.03


def test_a_seed_draws_the_same_again() -> None:
    first, second = (shapes.draw_shape(96, np.random.default_rng(3)).alpha for _ in range(2))
    assert np.array_equal(first, second)


def test_colours_fill_the_square() -> None:
    colours = shapes.draw_colours(64, np.random.default_rng(0))
    assert (colours.shape, colours.dtype) == ((64, 64, 3), np.uint8)
    assert colours.std() > 1


def test_wires_of_nets_are_round() -> None:
    """Their middle is lighter than their borders, which distinguishes them from flat stripes."""
    differences = []
    for seed in range(20):
        alpha, tint = shapes._net(96, np.random.default_rng(seed)).finished()
        assert tint is not None
        differences.append(np.ptp(tint[alpha > 200].astype(int)))
    assert np.median(differences) > 30
