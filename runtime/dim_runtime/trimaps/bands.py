"""The unknown band of a trimap: choose its width from the object's size, make it, widen or narrow it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dim.arrays import Bool, Float32, UInt8
from dim.errors import InputError
from dim.trimap import BACKGROUND, DARKEST_UNKNOWN, FOREGROUND, LIGHTEST_UNKNOWN, UNKNOWN, unknown

BAND_SHARE = 0.026
"""Width of the band over the square root of the object's area: 10 px for an object of 380 × 380 px."""
NARROWEST_BAND = 3
"""Pixels."""
SURE = 0.9
"""Alpha from which a network's pixel may become foreground; background at most 1 - SURE. With 0.98 the band
hardly narrows; 0.8 is no better."""
MARGIN_SHARE = 0.005
"""Margin that stays unknown beside pixels of which the network is not sure, over the image's longer side. A
margin of half the width cuts off loose hair; one of twice the width leaves bands too wide."""
NARROWEST_MARGIN = 2
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
    region = unknown(trimap)
    if pixels >= 0:
        return np.where(distance(region) <= pixels, UNKNOWN, trimap).astype(np.uint8)
    near = {level: distance(trimap == level) for level in (BACKGROUND, FOREGROUND)}
    level = np.where(near[FOREGROUND] < near[BACKGROUND], FOREGROUND, BACKGROUND)
    reached = np.minimum(near[FOREGROUND], near[BACKGROUND]) <= -pixels
    return np.where(reached & region, level, trimap).astype(np.uint8)


def narrowed(trimap: UInt8, alpha: Float32, kept: Bool) -> UInt8:
    """Make unknown pixels known where a network is sure of them, so that a second pass has more known pixels.

    Args:
        trimap: canonical, uint8 H, W.
        alpha: of the network for this trimap, float32 H, W.
        kept: bool H, W: pixels that stay as they are.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground. No known pixel changes.
    """
    margin = max(NARROWEST_MARGIN, round(MARGIN_SHARE * max(trimap.shape)))
    changing = unknown(trimap) & ~kept
    made = trimap.copy()
    # Known pixels of the same level count as sure: alpha repeats them.
    made[changing & shrunk(alpha > SURE, margin)] = FOREGROUND
    made[changing & shrunk(alpha < 1 - SURE, margin)] = BACKGROUND
    return made


def shrunk(region: Bool, pixels: int) -> Bool:
    """Return bool H, W: a region without a margin of this width; the frame of the image has no margin."""
    # A distance transform takes the same time for every width; erosion with an ellipse does not.
    return distance(~region) > pixels


def distance(region: Bool) -> Float32:
    """Return float32 H, W: the distance of every pixel to a region, pixels; infinite without a region."""
    if not region.any():
        return np.full(region.shape, np.inf, np.float32)
    outside = (~region).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
