"""Soft borders: what photographs of hair and fur have, and drawn or rendered cut-outs lack.

A camera sees strands thinner than its pixels, before or behind its focus, fewer towards their tips: on
photographs of hair nearly half of an unknown band is neither opaque nor empty. Both changes give the layers
another alpha before they are composed, so that it stays exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from dim.arrays import Random, UInt8
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.transforms import Layers

THINNED, BLURRED = 0.5, 0.6
"""Shares of softened samples whose border thins out, and whose lens blurs the foreground."""
LARGEST_FRINGE = 16.0
"""σ of the widest border that thins out, pixels."""
LARGEST_LENS = 3.0
"""σ of the strongest blur of a foreground, pixels."""
DENSE = 0.95
"""Coverage of the surroundings above which nothing is thinned: the inside stays opaque."""


def soften(layers: Layers, rng: Random) -> Layers:
    """Thin out the foreground's border, or blur the foreground, or both; sometimes neither.

    Args:
        layers: uint8 H, W, 3 and H, W; the background is returned as it is.
    """
    foreground, alpha = layers.foreground, layers.alpha
    if rng.random() < THINNED:
        alpha = thin(alpha, log_uniform(1, LARGEST_FRINGE, rng), float(rng.uniform(0.2, 0.9)))
    if rng.random() < BLURRED:
        foreground, alpha = blur(foreground, alpha, log_uniform(0.5, LARGEST_LENS, rng))
    return layers._replace(foreground=foreground, alpha=alpha)


def thin(alpha: UInt8, fringe: float, strength: float) -> UInt8:
    """Lower alpha where little around it is covered, as hair is less dense towards its tips.

    Args:
        alpha: uint8 H, W.
        fringe: σ of the Gaussian that measures the coverage, pixels.
        strength: share of alpha that a lone strand loses; 0 changes nothing.
    """
    around = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), fringe)
    coverage = np.minimum(around / np.float32(255 * DENSE), 1)
    kept = 1 - np.float32(strength) * (1 - coverage)
    return np.asarray(np.round(alpha * kept), np.uint8)


def blur(foreground: UInt8, alpha: UInt8, sigma: float) -> tuple[UInt8, UInt8]:
    """Blur colours and alpha together, as a lens does: colours count by their alpha.

    Args:
        foreground: uint8 H, W, 3, straight colours.
        alpha: uint8 H, W.
        sigma: of the Gaussian, pixels.

    Returns:
        Straight colours and alpha; colours stay as they were where nothing is covered.
    """
    share = alpha.astype(np.float32)
    covered = cv2.GaussianBlur(share, (0, 0), sigma)
    colours = cv2.GaussianBlur(foreground * share[..., None], (0, 0), sigma)
    straight = colours / np.maximum(covered, 0.5)[..., None]
    # What is below half a level becomes an alpha of 0.
    seen = (covered >= 0.5)[..., None]
    return (
        np.where(seen, np.round(np.minimum(straight, 255)), foreground).astype(np.uint8),
        np.round(covered).astype(np.uint8),
    )
