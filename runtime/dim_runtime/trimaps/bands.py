"""The unknown band of a trimap: choose its width from the object's size, make it, widen or narrow it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dim.arrays import Bool, Float32, UInt8
from dim.errors import InputError
from dim.trimap import BACKGROUND, DARKEST_UNKNOWN, FOREGROUND, LIGHTEST_UNKNOWN, UNKNOWN, ellipse, unknown

BAND_SHARE = 0.026
"""Width of the band over the square root of the object's area: 10 px for an object of 380 × 380 px."""
NARROWEST_BAND = 3
"""Pixels."""


def chosen_band(mask: UInt8) -> int:
    """Return the band's width on each side of a mask's border, in pixels.

    Args:
        mask: uint8 H, W; 128 and more is object.

    Raises:
        InputError: the mask has no object, or nothing else.
    """
    area = int(np.count_nonzero(mask >= 128))
    if area in (0, mask.size):
        raise InputError(
            "cannot make a trimap of this mask",
            got="no object" if area == 0 else "nothing but the object",
            expected="128 and more inside the object, less outside",
        )
    return max(NARROWEST_BAND, round(BAND_SHARE * math.sqrt(area)))


def from_soft_mask(mask: UInt8, *, inside: int | None = None, outside: int | None = None) -> UInt8:
    """Make a trimap of a mask whose border may be soft.

    Every level that is neither certainly background nor certainly object stays unknown, and so does a band on
    both sides of the border.

    Args:
        mask: uint8 H, W; 128 and more is object.
        inside: width of the band on the object's side, pixels; None chooses it from the object's area
            (:func:`chosen_band`).
        outside: width of the band on the background's side, pixels; None as above.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground.

    Raises:
        InputError: the mask has no border, or a width is negative.
    """
    band = chosen_band(mask)
    within, beyond = band if inside is None else inside, band if outside is None else outside
    if min(within, beyond) < 0:
        raise InputError(
            "cannot make a trimap", got=f"band of {within} and {beyond} px", expected="0 or more"
        )
    # The border of the hard mask gets the band; soft levels beyond it stay unknown as well.
    certain = shrunk(mask >= 128, within) & (mask > LIGHTEST_UNKNOWN)
    empty = shrunk(mask < 128, beyond) & (mask < DARKEST_UNKNOWN)
    trimap = np.full(mask.shape, UNKNOWN, np.uint8)
    trimap[certain] = FOREGROUND
    trimap[empty] = BACKGROUND
    return trimap


def resized_band(trimap: UInt8, pixels: int) -> UInt8:
    """Widen the unknown region of a trimap, or narrow it.

    Args:
        trimap: canonical, uint8 H, W.
        pixels: more than 0 makes unknown what lies within this distance of the unknown region; less than 0
            gives unknown pixels within this distance of a known one the nearest known level.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground.
    """
    region = _binary(unknown(trimap))
    if pixels >= 0:
        return np.where(cv2.dilate(region, ellipse(2 * pixels + 1)) > 0, UNKNOWN, trimap).astype(np.uint8)
    near = {level: _distance(trimap == level) for level in (BACKGROUND, FOREGROUND)}
    level = np.where(near[FOREGROUND] < near[BACKGROUND], FOREGROUND, BACKGROUND)
    reached = np.minimum(near[FOREGROUND], near[BACKGROUND]) <= -pixels
    return np.where(reached, np.where(region > 0, level, trimap), trimap).astype(np.uint8)


def shrunk(region: Bool, pixels: int) -> Bool:
    """Return bool H, W: a region without a margin of this width; the frame of the image has no margin."""
    # OpenCV's erosion treats pixels beyond the image as part of the region.
    return np.asarray(cv2.erode(_binary(region), ellipse(2 * pixels + 1)) > 0)


def _binary(region: Bool) -> UInt8:
    return region.astype(np.uint8)


def _distance(
    region: Bool,
) -> Float32:
    """Distance of every pixel to a region, pixels; infinite without one."""
    if not region.any():
        return np.full(region.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(_binary(~region), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
