"""Trimaps from strokes of a brush or a box: GrabCut on a small copy finds the object, a band its soft border.

GrabCut: Rother, Kolmogorov and Blake, SIGGRAPH 2004, as OpenCV has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dim.arrays import Bool, Float32, Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images.files import read_rgba
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN
from dim_runtime.trimaps.bands import chosen_band, from_soft_mask

WORKING_SIDE = 640
"""Longest side of the copy that GrabCut works on, pixels: about a second on one core."""
ITERATIONS = 5
SPECK_SHARE = 0.01
"""Smallest share of the object's area that a part of it has which no stroke touches."""
LEAST_SHARE = 0.2
"""Share of a small pixel that strokes must cover to mark it."""


class Box(NamedTuple):
    """A rectangle around the object, in pixels of the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Strokes:
    """What a person marked.

    Attributes:
        levels: uint8 H, W: 0 background, 128 unknown, 255 foreground; of no meaning where nothing is marked.
        marked: bool H, W.
    """

    levels: UInt8
    marked: Bool

    def at(self, level: int) -> Bool:
        """Return bool H, W: where this level is marked."""
        return np.asarray(self.marked & (self.levels == level))

    @classmethod
    def none(cls, height: int, width: int) -> Strokes:
        """Return strokes that mark nothing."""
        return cls(np.zeros((height, width), np.uint8), np.zeros((height, width), np.bool_))


def propose(image: Image, strokes: Strokes, box: Box | None = None) -> UInt8:
    """Make a trimap of strokes, of a box around the object, or of both.

    Args:
        image: uint8 or uint16 H, W, 3, RGB.
        strokes: levels that are kept as they are; what is not marked is decided by colour.
        box: everything outside is background.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground.

    Raises:
        InputError: sizes differ, the box lies outside, or nothing tells the object from the background.
    """
    height, width = image.shape[:2]
    if strokes.levels.shape != (height, width):
        raise InputError(
            "cannot use these strokes",
            got=f"{strokes.levels.shape[1]}×{strokes.levels.shape[0]} px",
            expected=f"the image's {width}×{height} px",
        )
    outside = _outside(box, height, width)
    foreground, background = strokes.at(FOREGROUND), strokes.at(BACKGROUND) | outside
    _require_both(foreground, background, box)
    size = _working_size(height, width)
    small = np.asarray(cv2.resize(eight_bits(image), size, interpolation=cv2.INTER_AREA), np.uint8)
    object_mask = _segmented(
        small, _covered(foreground, size), _covered(background, size), boxed=box is not None
    )
    mask = cv2.resize(object_mask, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    band = max(chosen_band(mask), -(-2 * max(height, width) // max(size)))
    trimap = from_soft_mask(mask, inside=band, outside=band)
    trimap[outside & ~strokes.marked] = BACKGROUND
    trimap[strokes.marked] = strokes.levels[strokes.marked]
    return trimap


def _outside(box: Box | None, height: int, width: int) -> Bool:
    outside = np.zeros((height, width), np.bool_)
    if box is None:
        return outside
    inside = box.x >= 0 and box.y >= 0 and box.x + box.width <= width and box.y + box.height <= height
    if not inside or box.width < 2 or box.height < 2:
        raise InputError(
            "cannot use this box",
            got=f"{box.width}×{box.height} px at {box.x}, {box.y}",
            expected=f"at least 2×2 px inside {width}×{height} px",
        )
    outside[:] = True
    outside[box.y : box.y + box.height, box.x : box.x + box.width] = False
    return outside


def _require_both(foreground: Bool, background: Bool, box: Box | None) -> None:
    if not background.any():
        raise InputError(
            "cannot separate the object from the background",
            got="no background stroke" if box is None else "a box as large as the image",
            expected="strokes over the background, or a box around the object",
        )
    if box is None and not foreground.any():
        raise InputError(
            "cannot separate the object from the background",
            got="no foreground stroke",
            expected="strokes over the foreground, or a box around the object",
        )


def _working_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, WORKING_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _covered(region: Bool, size: tuple[int, int]) -> Bool:
    share = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(share > LEAST_SHARE)


def _segmented(small: UInt8, foreground: Bool, background: Bool, *, boxed: bool) -> UInt8:
    """Return uint8 H, W of 0 and 255: where GrabCut finds the object."""
    mask = np.full(small.shape[:2], cv2.GC_PR_FGD if boxed else cv2.GC_PR_BGD, np.uint8)
    if foreground.any() and background.any() and not boxed:
        # Begin with the nearest stroke: the colour models start from more than the strokes alone.
        mask[_distance(foreground) < _distance(background)] = cv2.GC_PR_FGD
    mask[background] = cv2.GC_BGD
    mask[foreground] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    # The colour models start from random seeds: fix them, so that the same strokes give the same trimap.
    cv2.setRNGSeed(0)
    bgr = np.ascontiguousarray(small[..., ::-1])
    # The rectangle is not used in this mode.
    cv2.grabCut(bgr, mask, (0, 0, 1, 1), *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    if not found.any():
        raise InputError(
            "cannot find the object",
            why="its colours are those of the background",
            fix="mark more of the foreground",
        )
    found = _without_specks(found, foreground)
    # Holes are specks of the background.
    found = ~_without_specks(~found, background)
    return np.where(found, 255, 0).astype(np.uint8)


def _without_specks(region: Bool, marked: Bool) -> Bool:
    """Remove connected parts that are small beside the whole and that no stroke touches."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    keep = statistics[:, cv2.CC_STAT_AREA] >= SPECK_SHARE * np.count_nonzero(region)
    keep[np.unique(labels[marked])] = True
    keep[0] = False
    return np.asarray(keep[labels]) if count > 1 else region


def _distance(region: Bool) -> Float32:
    return np.asarray(cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def read_strokes(path: Path, *, max_pixels: int) -> Strokes:
    """Read strokes from an image file: white foreground, black background, gray unknown, transparent
    unmarked.

    Raises:
        InputError: not an image, too large, or without transparency.
    """
    pixels = eight_bits(read_rgba(path, max_pixels=max_pixels))
    marked = pixels[..., 3] >= 128
    if marked.all():
        raise InputError(
            f"cannot read strokes from {path}",
            got="no transparent pixel",
            expected="white foreground, black background, gray unknown, transparent where nothing is marked",
        )
    levels = np.full(marked.shape, UNKNOWN, np.uint8)
    gray = pixels[..., 1]
    levels[gray >= 192] = FOREGROUND
    levels[gray < 64] = BACKGROUND
    return Strokes(levels, marked)
