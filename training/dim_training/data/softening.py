"""Soft borders: what photographs of hair and fur have, and drawn or rendered cut-outs lack.

A camera sees strands thinner than its pixels, before or behind its focus, fewer towards their tips: on
photographs of hair nearly half of an unknown band is neither opaque nor empty. Both changes give a foreground
another alpha before it is composed, so that it stays exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from dim.arrays import Float32, Random, UInt8
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.sources import Cutout

THINNED, BLURRED = 0.5, 0.6
"""Shares of softened samples whose strands thin out, and whose lens blurs the foreground."""
LARGEST_FRINGE = 16.0
"""Largest σ of the Gaussian that measures the coverage around strands, pixels."""
LARGEST_LENS = 3.0
"""σ of the strongest blur of a foreground, pixels."""
THICKEST = 7
"""Width from which everything stays opaque, pixels: wires and yarn."""
INSIDE = 15
"""Width of what counts as the inside of an object, pixels: strands thin out around it. Nets and baskets have
none."""
REACH, FAINTEST = 3.0, 1 / 8
"""How far from the inside strands thin out: σ of a Gaussian over that of the coverage, and the mean of the
inside in it from which they thin out in full."""
DENSE = 0.95
"""Coverage of the surroundings above which nothing is thinned: the inside stays opaque."""


def soften(cutout: Cutout, rng: Random) -> Cutout:
    """Thin out strands around a foreground, or blur the foreground, or both; sometimes neither."""
    colours, alpha = cutout
    if rng.random() < THINNED:
        thickness = int(rng.choice(range(3, THICKEST + 1, 2)))
        fringe, strength = log_uniform(1, LARGEST_FRINGE, rng), float(rng.uniform(0.2, 0.9))
        alpha = thin(alpha, fringe, strength, thickness)
    if rng.random() < BLURRED:
        colours, alpha = blur(colours, alpha, log_uniform(0.5, LARGEST_LENS, rng))
    return Cutout(colours, alpha)


def thin(alpha: UInt8, fringe: float, strength: float, thickness: int) -> UInt8:
    """Lower alpha of strands around an object, as hair is less dense towards its tips.

    Args:
        alpha: uint8 H, W.
        fringe: σ of the Gaussian that measures how much around a pixel is covered, pixels.
        strength: share of alpha that a strand loses at most; 0 changes nothing.
        thickness: odd number of pixels; what is at least as wide, such as wire or yarn, stays as it is.
    """
    coverage = np.minimum(_around(alpha, fringe) / DENSE, 1)
    near = np.minimum(_around(_opened(alpha, INSIDE), REACH * fringe) / FAINTEST, 1)
    # Smoothed, so that a strand has no step where it becomes wide.
    thick = _around(_opened(alpha, thickness), 1.0)
    lost = strength * (1 - coverage) * near * (1 - thick)
    return np.asarray(np.round(alpha * (1 - lost)), np.uint8)


def _around(alpha: UInt8, sigma: float) -> Float32:
    """Return the mean alpha around each pixel, 0-1."""
    return np.asarray(cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), sigma), np.float32)


def _opened(alpha: UInt8, side: int) -> UInt8:
    """Return alpha without what is narrower than ``side`` pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.morphologyEx(alpha, cv2.MORPH_OPEN, disc), np.uint8)


def blur(colours: UInt8, alpha: UInt8, sigma: float) -> tuple[UInt8, UInt8]:
    """Blur colours and alpha together, as a lens does: colours count by their alpha.

    Args:
        colours: uint8 H, W, 3, straight.
        alpha: uint8 H, W.
        sigma: of the Gaussian, pixels.

    Returns:
        Straight colours and alpha; colours stay as they were where nothing is covered.
    """
    share = alpha.astype(np.float32)
    covered = cv2.GaussianBlur(share, (0, 0), sigma)
    weighted = cv2.GaussianBlur(colours * share[..., None], (0, 0), sigma)
    straight = weighted / np.maximum(covered, 0.5)[..., None]
    # What is below half a level becomes an alpha of 0.
    seen = (covered >= 0.5)[..., None]
    return (
        np.where(seen, np.round(np.minimum(straight, 255)), colours).astype(np.uint8),
        np.round(covered).astype(np.uint8),
    )
