"""Crowds: one foreground several times, one before the other, as leaves of a bush or threads of a fringe.

What photographs of plants, fringes and flowers leave to find are gaps deep inside of an object: small, far
from known background, between parts whose colours are those of the known foreground.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Random
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.sources import Cutout

MOST_COPIES = 6
"""Copies of a foreground at most; at least two."""
SIZES = 0.4, 1.0
"""Smallest and largest size of the copies, relative to the foreground."""
SPREADS = 0.03, 0.3
"""Smallest and largest distance of copies from the middle along an axis, relative to the canvas."""
DARKEST = 0.4
"""Least brightness of a copy, as if others shaded it, relative to the foreground's."""
FAINTEST = 1e-3
"""Alpha from which a pixel has colours."""


def crowd(cutout: Cutout, rng: Random) -> Cutout:
    """Lay smaller, turned and shaded copies of a foreground over each other.

    Returns:
        A foreground of the same size: straight colours, and the joint alpha.
    """
    size, shade = log_uniform(*SIZES, rng), rng.uniform(DARKEST, 1)
    turn, spread = rng.uniform(10, 180), log_uniform(*SPREADS, rng)
    shape = cutout.alpha.shape
    # The copies so far: colours times alpha, and alpha in 0-1. Joining two finished foregrounds for each copy
    # (sources.merge) would divide and round each time.
    shown, covered = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)
    for _ in range(int(rng.integers(2, MOST_COPIES + 1))):
        copy = _shaded(_smaller(cutout, min(1.0, size * rng.uniform(0.8, 1.25))), rng.uniform(shade, 1))
        copy = _laid(copy, shape, angle=float(rng.uniform(-turn, turn)), spread=spread, rng=rng)
        alpha = copy.alpha[..., None] * np.float32(1 / 255)
        shown += alpha * (copy.colours - shown)
        covered += alpha * (1 - covered)
    # Where nothing is visible any colour is right; the last copy's keeps the borders smooth.
    straight = np.where(covered > FAINTEST, shown / np.maximum(covered, FAINTEST), copy.colours)
    return Cutout(
        np.clip(straight, 0, 255).astype(np.uint8), np.round(255 * covered[..., 0]).astype(np.uint8)
    )


def _smaller(cutout: Cutout, scale: float) -> Cutout:
    size = tuple(max(1, round(length * scale)) for length in cutout.alpha.shape[::-1])
    return Cutout(
        *(cv2.resize(layer, size, interpolation=cv2.INTER_AREA).astype(np.uint8) for layer in cutout)
    )


def _shaded(cutout: Cutout, brightness: float) -> Cutout:
    return cutout._replace(colours=(cutout.colours * np.float32(brightness)).astype(np.uint8))


def _laid(cutout: Cutout, shape: tuple[int, ...], *, angle: float, spread: float, rng: Random) -> Cutout:
    """Turn a copy by ``angle`` degrees around its centre of mass, which comes near the middle of the canvas;
    mirror it or not.

    Args:
        shape: of the canvas: rows, columns.
        spread: largest distance from the middle along an axis, relative to the canvas.
    """
    moments, canvas = cv2.moments(cutout.alpha), np.array(shape[::-1], np.float64)
    centre = np.array(cutout.alpha.shape[::-1]) / 2
    if moments["m00"]:
        centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    turned: npt.NDArray[np.float64] = np.array(
        cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, 1.0), np.float64
    )
    turned[:, 2] += canvas / 2 - centre + rng.uniform(-spread, spread, 2) * canvas
    step = -1 if rng.random() < 0.5 else 1
    colours, alpha = (
        cv2.warpAffine(layer, turned, (shape[1], shape[0]), flags=cv2.INTER_LINEAR, borderMode=border)
        for layer, border in ((cutout.colours, cv2.BORDER_REPLICATE), (cutout.alpha, cv2.BORDER_CONSTANT))
    )
    return Cutout(colours[:, ::step].astype(np.uint8), alpha[:, ::step].astype(np.uint8))
