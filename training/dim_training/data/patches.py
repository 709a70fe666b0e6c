"""Patches: parts of a foreground in another colour, as animals, petals and fabrics have them.

Photographs have unknown regions whose colours are those of no known foreground nearby, such as a white hip
of a black animal. Rendered and drawn foregrounds are mostly of one colour: a network that sees these alone
finds every other colour to be background.
"""

from __future__ import annotations

import cv2
import numpy as np

from dim.arrays import Float32, Random
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


def patch(cutout: Cutout, rng: Random) -> Cutout:
    """Give parts of a foreground another colour; its texture and its alpha stay.

    Returns:
        A foreground with the same alpha.
    """
    covered = _patches(cutout.alpha.shape, rng)[..., None]
    repainted = _repainted(cutout, _colour(rng), float(rng.uniform(*CONTRASTS)))
    colours = cutout.colours + covered * (repainted - cutout.colours)
    return cutout._replace(colours=np.round(colours).astype(np.uint8))


def _patches(shape: tuple[int, ...], rng: Random) -> Float32:
    """Return how much of each pixel a patch covers, 0-1: smooth noise above a threshold."""
    cell = log_uniform(*SIZES, rng) * max(shape)
    grid = [max(2, round(length / cell)) for length in shape]
    noise = cv2.resize(
        rng.standard_normal(grid).astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    threshold = np.quantile(noise, 1 - rng.uniform(*SHARES))
    softness = np.float32(log_uniform(SOFTEST / 20, SOFTEST, rng))
    return np.asarray(np.clip((noise - np.float32(threshold)) / softness + 0.5, 0, 1), np.float32)


def _colour(rng: Random) -> Float32:
    """Return RGB, 0-255."""
    if rng.random() < GRAY:
        return np.full(3, rng.uniform(0, 256), np.float32)
    return rng.uniform(0, 256, 3).astype(np.float32)


def _repainted(cutout: Cutout, colour: Float32, contrast: float) -> Float32:
    """Return the foreground's texture around another mean colour, float32 H, W, 3, 0-255."""
    weights = cutout.alpha.astype(np.float32)
    mean = np.tensordot(weights, cutout.colours.astype(np.float32), 2) / max(float(weights.sum()), 1.0)
    texture = np.float32(contrast) * (cutout.colours - mean.astype(np.float32))
    return np.asarray(np.clip(colour + texture, 0, 255), np.float32)
