"""Find the window in which two alphas differ most, and draw the difference."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from dim import trimap as trimaps
from dim.arrays import Floating, UInt8
from dim_export.parity.comparison import VISIBLE
from dim_runtime.images.pairs import MattingSample

SIDE = 160
"""Largest side of the shown window, pixels."""
NAN_COLOUR = (255, 0, 255)
"""RGB of pixels that are NaN on either side: magenta, which the colour map does not have."""


class Snapshot(NamedTuple):
    """The window of one case with the largest sum of differences.

    Attributes:
        case: name of the sample.
        y, x: top left corner of the window in the case's image, pixels.
        image: uint8 h, w, 3 RGB.
        trimap: uint8 h, w.
        reference, found: both alphas, floating h, w.
        total: sum of the differences of its unknown pixels; infinite if there is a NaN.
    """

    case: str
    y: int
    x: int
    image: UInt8
    trimap: UInt8
    reference: Floating
    found: Floating
    total: float

    @property
    def difference(self) -> Floating:
        """Absolute difference of the unknown pixels, float64 h, w, 0 elsewhere; NaN where one side is NaN."""
        return _difference(self.reference, self.found, self.trimap)


def worst_window(
    sample: MattingSample, reference: Floating, found: Floating, *, side: int = SIDE
) -> Snapshot:
    """Return the window, at most ``side`` pixels high and wide, with the largest sum of differences."""
    difference = _difference(reference, found, sample.trimap)
    weights = np.nan_to_num(difference, nan=1.0)
    height, width = (min(side, length) for length in weights.shape)
    sums = cv2.integral(weights)
    totals = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = map(int, np.unravel_index(int(totals.argmax()), totals.shape))
    part = slice(y, y + height), slice(x, x + width)
    return Snapshot(
        sample.name,
        y,
        x,
        sample.image[part].copy(),
        sample.trimap[part].copy(),
        reference[part].copy(),
        found[part].copy(),
        total=np.inf if np.isnan(difference).any() else float(totals[y, x]),
    )


def heat_map(difference: Floating) -> tuple[UInt8, float]:
    """Colour a difference, floating H, W, from black (0) over red to white (the top of the scale).

    Returns:
        uint8 H, W, 3 RGB, and the top of the scale: the largest difference, but at least 1/255, so that
        an invisible difference stays dark.
    """
    finite = np.nan_to_num(difference, nan=0.0)
    top = max(float(finite.max()), VISIBLE)
    gray = np.rint(finite / top * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB)
    colours[np.isnan(difference)] = NAN_COLOUR
    return colours.astype(np.uint8, copy=False), top


def gray_picture(alpha: Floating) -> UInt8:
    """Return an alpha, floating H, W in [0, 1], as uint8 H, W, 3; NaN is magenta."""
    gray = np.rint(np.clip(np.nan_to_num(alpha), 0, 1) * 255).astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    colours[np.isnan(alpha)] = NAN_COLOUR
    return colours


def _difference(reference: Floating, found: Floating, trimap: UInt8) -> Floating:
    difference = np.abs(reference.astype(np.float64) - found.astype(np.float64))
    difference[~trimaps.unknown(trimap)] = 0
    return difference
