"""Hair, fur and yarn: gaps between strands, their own colours, and a closed body."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dim.arrays import Random, UInt8
from dim_training.data.procedural import strands
from dim_training.data.procedural.canvas import NEUTRAL, Canvas, outline
from dim_training.data.sources import ProceduralBackgrounds, ProceduralForegrounds

SIDE = 200
Draw = Callable[[int, Random], Canvas]
ALL = [strands.hair, strands.fur, strands.yarn]


@pytest.mark.parametrize("draw", ALL)
def test_a_seed_draws_the_same_again(draw: Draw) -> None:
    first, second = (draw(SIDE, np.random.default_rng(1)).finished() for _ in range(2))
    assert np.array_equal(first.alpha, second.alpha)
    assert first.tint is not None
    assert second.tint is not None
    assert np.array_equal(first.tint, second.tint)


@pytest.mark.parametrize("draw", ALL)
def test_strands_stand_apart_from_the_background(draw: Draw) -> None:
    """Many separate gaps: the background's border crosses each row several times, in the mean."""
    crossings = [_crossings(draw(SIDE, np.random.default_rng(seed)).finished().alpha) for seed in range(12)]
    assert np.mean(crossings) > 4


def _crossings(alpha: UInt8) -> float:
    """Count changes between clear and opaque in the rows that show anything."""
    opaque = alpha[alpha.max(1) > 128] > 128
    return float(np.abs(np.diff(opaque.astype(int), axis=1)).sum(1).mean()) if len(opaque) else 0.0


@pytest.mark.parametrize("draw", ALL)
def test_strands_differ_in_colour(draw: Draw) -> None:
    spread = []
    for seed in range(12):
        alpha, tint = draw(SIDE, np.random.default_rng(seed)).finished()
        assert tint is not None
        assert (tint[alpha == 0] == NEUTRAL).mean() > 0.5
        spread.append(tint[alpha > 200].astype(float).std())
    assert np.median(spread) > 5


def test_translucent_strands_leave_no_holes_in_the_body() -> None:
    for seed in range(12):
        alpha = strands.fur(SIDE, np.random.default_rng(seed)).alpha
        body, rng = Canvas(SIDE), np.random.default_rng(seed)
        radius, wobble = rng.uniform(0.15, 0.35), rng.uniform(0.05, 0.3)
        # The body's outline is the first thing that is drawn.
        body.fill(outline(2 * SIDE, rng, radius=radius, wobble=wobble))
        assert (alpha[body.alpha == 255] == 255).all(), seed


def test_tints_reach_the_colours() -> None:
    """Drawn foregrounds are not all one texture: the strands' borders are in the colours too."""
    source = ProceduralForegrounds(SIDE, ProceduralBackgrounds())
    textured = 0
    for seed in range(20):
        colours, alpha = source.draw(np.random.default_rng(seed))
        edges = np.abs(np.diff(colours.astype(int), axis=1)).sum(2)[alpha[:, 1:] > 200]
        textured += bool(len(edges) and np.percentile(edges, 95) > 30)
    assert textured >= 5
