"""Patches: parts of a foreground in another colour, as animals, petals and fabrics have them.

Photographs have unknown regions whose colours are those of no known foreground nearby, such as a white hip
of a black animal. Rendered and drawn foregrounds are mostly of one colour: a network that sees these alone
finds every other colour to be background.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Float32, Random, UInt8
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.sources import Cutout

SIZES = 1 / 32, 1 / 3
"""Smallest and largest size of patches, relative to the canvas."""
SHARES = 0.2, 0.7
"""Smallest and largest part of the canvas that patches cover."""
SOFTEST = 0.5
"""Width of the softest border, in standard deviations of the noise that draws the patches."""
GRAY = 0.5
"""Share of patches that are black, gray or white, as most fur is."""
CONTRASTS = 0.4, 1.2
"""Least and most contrast that a texture keeps in its new colour."""
HALF = 127
"""Alpha above which a pixel counts for a foreground's mean colour, 0-255."""

Floats = npt.NDArray[np.float64]


def patch(cutout: Cutout, rng: Random) -> Cutout:
    """Give parts of a foreground another colour; its texture and its alpha stay.

    Returns:
        A foreground with the same alpha.
    """
    covered = _patches(cutout.alpha.shape, rng)
    repainted = _repainted(cutout, _colour(rng), float(rng.uniform(*CONTRASTS)))
    colours = cv2.blendLinear(cutout.colours, repainted, 1 - covered, covered)
    return cutout._replace(colours=colours.astype(np.uint8, copy=False))


def _patches(shape: tuple[int, ...], rng: Random) -> Float32:
    """Return how much of each pixel a patch covers, 0-1: smooth noise above a threshold."""
    cell = log_uniform(*SIZES, rng) * max(shape)
    grid = rng.standard_normal([max(2, round(length / cell)) for length in shape]).astype(np.float32)
    noise = cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)
    threshold = np.quantile(noise[::4, ::4], 1 - rng.uniform(*SHARES))
    softness = log_uniform(SOFTEST / 20, SOFTEST, rng)
    return np.asarray(np.clip((noise - np.float32(threshold)) / np.float32(softness) + 0.5, 0, 1), np.float32)


def _colour(rng: Random) -> Floats:
    """Return RGB, 0-255."""
    if rng.random() < GRAY:
        return np.full(3, rng.uniform(0, 255))
    return rng.uniform(0, 255, 3)


def _repainted(cutout: Cutout, colour: Floats, contrast: float) -> UInt8:
    """Return the foreground's texture around another mean colour, uint8 H, W, 3."""
    mean = np.array(cv2.mean(cutout.colours, (cutout.alpha > HALF).astype(np.uint8))[:3])
    table = colour + contrast * (np.arange(256)[:, None] - mean)
    return cv2.LUT(cutout.colours, np.round(table.clip(0, 255)).astype(np.uint8)[None]).astype(
        np.uint8, copy=False
    )
