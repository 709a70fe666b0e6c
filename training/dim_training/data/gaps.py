"""Gaps: small holes through a foreground, as between leaves, threads and wires.

In a trimap they are islands of unknown pixels in known foreground, without known background nearby. What
fills them differs from what is around them, and often is no darker than the creases between leaves which are
no holes. Rendered foregrounds are mostly closed: a network that sees these alone closes every gap.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Random, UInt8
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.sources import Cutout

OPAQUE = 250
"""Alpha from which a pixel is inside of the foreground, 0-255."""
MOST_CLUSTERS, MOST_GAPS = 4, 40
SPREADS = 0.02, 0.25
"""Smallest and largest standard deviation of gaps around their cluster's middle, relative to the canvas."""
LENGTHS = 0.008, 0.12
"""Smallest and largest length of gaps, relative to the canvas."""
SLIMMEST = 0.08
"""Smallest width of a gap, relative to its length."""
MOST_CREASES = 0.6
"""Largest share of creases, which are dark and opaque, among the gaps and creases of a foreground."""
SHADED = 0.7
"""Share of foregrounds that are darker around their gaps."""
SHADOWS = 1.0, 14.0
"""Smallest and largest σ of that shadow's border, pixels."""
SOFT = 0.5
"""Share of foregrounds whose gaps have borders softer than one pixel."""
_SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with."""

Floats = npt.NDArray[np.float64]


def pierce(cutout: Cutout, rng: Random) -> Cutout:
    """Cut small holes into the opaque part of a foreground, and draw dark creases that are none.

    Returns:
        A foreground of the same size; the same one if nothing of it is opaque.
    """
    rows, columns = np.nonzero(cutout.alpha >= OPAQUE)
    if not rows.size:
        return cutout
    holes, creases = (np.zeros(cutout.alpha.shape, np.uint8) for _ in range(2))
    share = rng.uniform(0, MOST_CREASES)
    for _ in range(int(rng.integers(1, MOST_CLUSTERS + 1))):
        middle = rng.integers(rows.size)
        for shape in _cluster(np.array([columns[middle], rows[middle]]), max(cutout.alpha.shape), rng):
            points = np.round(shape * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(creases if rng.random() < share else holes, [points], 255, cv2.LINE_AA, _SHIFT)
    if rng.random() < SOFT:
        holes = cv2.GaussianBlur(holes, (0, 0), log_uniform(0.4, 2, rng)).astype(np.uint8, copy=False)
    alpha = cv2.multiply(cutout.alpha, 255 - holes, scale=1 / 255).astype(np.uint8, copy=False)
    return Cutout(_shaded(cutout.colours, holes, creases, rng), alpha)


def _cluster(middle: Floats, side: int, rng: Random) -> list[Floats]:
    """Draw the outlines of gaps around a point, most of them in one direction; each points × 2."""
    spread, length = log_uniform(*SPREADS, rng) * side, log_uniform(*LENGTHS, rng) * side
    slimness = log_uniform(SLIMMEST, 1, rng)
    direction, scatter = rng.uniform(0, np.pi), rng.uniform(0.05, 1)
    shapes = []
    for _ in range(round(log_uniform(1, MOST_GAPS, rng))):
        # Corners on an ellipse: triangles, quadrangles, lenses.
        corners = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 13)))
        long = length * rng.uniform(0.4, 1.4) / 2
        oval = np.stack([long * np.cos(corners), long * slimness * np.sin(corners)], 1)
        angle = direction + rng.normal(0, scatter)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shapes.append(middle + rng.normal(0, spread, 2) + oval @ turn.T)
    return shapes


def _shaded(colours: UInt8, holes: UInt8, creases: UInt8, rng: Random) -> UInt8:
    """Darken creases, and perhaps what is around them and around holes; uint8 H, W, 3."""
    light = 1 - creases.astype(np.float32) * np.float32(rng.uniform(0.3, 1) / 255)
    if rng.random() < SHADED:
        wide = cv2.GaussianBlur(np.maximum(holes, creases), (0, 0), log_uniform(*SHADOWS, rng))
        light *= 1 - np.asarray(wide, np.float32) * np.float32(rng.uniform(0.2, 1) / 255)
    return (colours * light[..., None]).astype(np.uint8)
