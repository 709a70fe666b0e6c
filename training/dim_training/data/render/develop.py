"""From light to a picture: straight 8-bit sRGB colours with alpha, and composites over a background."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from dim.arrays import UInt8
from dim_training.data.render.vectors import Floats

SCALES = ((0.5, 0.5), (1.0, 0.15), (2.5, 0.05), (8.0, 0.02), (40.0, 0.0))
"""Standard deviations of blurs, pixels, and the mean alpha from which the blurred colour is trusted fully."""

GRAIN = 0.3
"""Share of the noise that is kept where it could be removed: the denoiser takes single hairs out with it."""

FIREFLY = 2.0
"""Largest brightness of a colour, relative to the mean of what is near."""

KNEE = 0.7
"""Linear level above which highlights roll off."""


def develop(noisy: Floats, clean: Floats, alpha: Floats, *, exposure: float) -> UInt8:
    """Return H × W × 4 straight sRGB colours and alpha, uint8 RGBA.

    Args:
        noisy: premultiplied linear RGB and the alpha of the same light paths, H × W × 4.
        clean: premultiplied linear RGB without noise, blurred at borders, H × W × 3.
        alpha: exact alpha, H × W, 0-1.
        exposure: linear level, 0-1, of the bright parts of the subject.
    """
    straight = _denoised(unpremultiply(noisy), clean, alpha)
    exposed = _roll_off(straight * (exposure / _bright_level(straight, alpha)))
    rgba = np.dstack([encode_srgb(exposed), np.clip(alpha, 0, 1)])
    return np.round(255 * rgba).astype(np.uint8)


def develop_background(linear: Floats, *, exposure: float) -> UInt8:
    """Return H × W × 3 sRGB, uint8, of linear RGB without noise; ``exposure`` as in :func:`develop`."""
    level = _bright_level(linear, np.ones(linear.shape[:2]))
    return np.round(255 * encode_srgb(_roll_off(linear * (exposure / level)))).astype(np.uint8)


def _denoised(straight: Floats, clean: Floats, alpha: Floats) -> Floats:
    """Replace most of the noise where alpha varies little: there the denoiser blurs no border."""
    covered = cv2.GaussianBlur(alpha, (0, 0), 1.0)
    kernel = np.ones((3, 3), np.uint8)
    slope = cv2.dilate(covered, kernel) - cv2.erode(covered, kernel)
    flat = np.clip(1 - slope / 0.15, 0, 1) * np.clip(covered / 0.1, 0, 1)
    blurred = cv2.GaussianBlur(clean, (0, 0), 1.0) / np.maximum(covered, 1e-3)[..., None]
    smooth = np.where(alpha[..., None] > 0.99, clean, blurred)
    # Single paths that found a lamp by chance are far brighter than the mean of what is near.
    near = (
        cv2.GaussianBlur(clean, (0, 0), 3.0)
        / np.maximum(cv2.GaussianBlur(alpha, (0, 0), 3.0), 1e-3)[..., None]
    )
    level, limit = straight.max(-1), FIREFLY * near.max(-1)
    straight = straight * np.minimum(1, limit / np.maximum(level, 1e-6))[..., None]
    return cast(Floats, straight + ((1 - GRAIN) * flat)[..., None] * (smooth - straight))


def unpremultiply(layers: Floats) -> Floats:
    """Return straight colours, H × W × 3, of premultiplied ones with alpha, H × W × 4; defined everywhere.

    A quotient of few light paths is noisy where alpha is small. There the quotient of blurred colours and
    equally blurred alpha takes over, at the smallest blur under which enough is covered.
    """
    result = np.zeros((*layers.shape[:2], 3))
    missing = np.ones((*layers.shape[:2], 1))
    for sigma, trusted in SCALES:
        blurred = cv2.GaussianBlur(layers, (0, 0), sigma)
        covered = blurred[..., 3:]
        trust = np.clip(covered / trusted, 0, 1) if trusted else np.ones_like(covered)
        result += missing * trust * blurred[..., :3] / np.maximum(covered, 1e-6)
        missing = missing * (1 - trust)
    return cast(Floats, result)


def encode_srgb(linear: Floats) -> Floats:
    """Return sRGB, 0-1, of linear values (IEC 61966-2-1); values outside of 0-1 are clipped."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def composite(rgba: UInt8, background: UInt8) -> UInt8:
    """Return α·F + (1 − α)·B of uint8 H × W arrays."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    mixed = alpha * rgba[..., :3] + (1 - alpha) * background
    return np.round(mixed).astype(np.uint8)


def _bright_level(straight: Floats, alpha: Floats) -> float:
    """Return the level that all but a tenth of the subject stays below."""
    weights = alpha.ravel()
    if not weights.any():
        return 1.0
    brightness = straight.max(-1).ravel()
    order = brightness.argsort()
    share = np.cumsum(weights[order]) / weights.sum()
    return max(float(brightness[order][np.searchsorted(share, 0.9)]), 1e-3)


def _roll_off(linear: Floats) -> Floats:
    over = np.maximum(linear - KNEE, 0) / (1 - KNEE)
    return np.where(linear > KNEE, KNEE + (1 - KNEE) * (1 - np.exp(-over)), linear)
