"""Trimaps from strokes, a box or a network's mask; :mod:`dim_runtime.trimaps.grabcut` finds the object.

Pixels on which the runs of GrabCut disagree are unknown, because the network cannot repair a wrong known
pixel. A band along the border is unknown as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dim.arrays import Bool, Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images.files import read_rgba
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN
from dim_runtime.trimaps.bands import chosen_band, distance, shrunk
from dim_runtime.trimaps.grabcut import Marks, segmented, working_size
from dim_runtime.trimaps.grabcut_process import segmented_apart

LEAST_SHARE = 0.2
"""Share of a small pixel that strokes must cover to mark it; less where all strokes are thinner."""
MOST_COLOUR = 64
"""Largest difference of a stroke's channels: lossy files change grays a little."""
BORDER_SHARE = 0.02
"""Share of a box's side: a box that ends nearer to the image's border reaches it, as its object does."""
EXPORT = "draw on an empty layer above the photograph; export that layer alone as PNG with transparency"
GROWTH = 1.0
"""Farthest that an unknown stroke widens the unknown region, in widths of the band."""
GROWTH_STEPS = 6
"""Number of radii by which unknown strokes grow."""


class Box(NamedTuple):
    """A rectangle around the object, in pixels of the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Strokes:
    """Marks of a person.

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


def propose(
    image: Image,
    strokes: Strokes,
    box: Box | None = None,
    mask: UInt8 | None = None,
    *,
    check: Callable[[], object] | None = None,
) -> UInt8:
    """Make a trimap of strokes, of a box around the object, of a network's mask, or of these together.

    Args:
        image: uint8 or uint16 H, W, 3, RGB.
        strokes: levels that are kept as they are; what is not marked is decided by colour, and unknown where
            the runs of GrabCut disagree. Strokes over the unknown region widen the band where they pass.
        box: everything outside is background.
        mask: of a network, uint8 H, W: GrabCut starts with its object, and holes of which the network is sure
            that they are object are filled. None starts from the strokes, or from the box.
        check: called while GrabCut runs; its error ends the work at once. For that GrabCut runs in a child
            process. None lets it run here: some seconds for a photograph, and minutes for noise.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground.

    Raises:
        InputError: sizes differ, the box lies outside, or the object's colours are those of the background.
    """
    height, width = image.shape[:2]
    if strokes.levels.shape != (height, width):
        raise InputError(
            "cannot use these scribbles",
            got=f"{strokes.levels.shape[1]}×{strokes.levels.shape[0]} px",
            expected=f"the image's {width}×{height} px",
        )
    outside = _outside(box, height, width)
    foreground, background = strokes.at(FOREGROUND), strokes.at(BACKGROUND) | outside
    if mask is None:
        _require_both(foreground, background, box)
    size = working_size(height, width)
    small = _reduced(eight_bits(image), size)
    marks = Marks(_covered(foreground, size), _covered(background, size), _covered(strokes.at(UNKNOWN), size))
    seen = None if mask is None else _reduced(mask, size)
    if check is None:
        found = segmented(small, marks, seen, boxed=box is not None)
    else:
        found = segmented_apart(small, marks, seen, boxed=box is not None, check=check)
    # The band's width and the unknown strokes refer to the border of one run.
    object_mask = _binary(found[0])
    band = max(chosen_band(_enlarged(object_mask, image)), -(-2 * max(height, width) // max(size)))
    trimap = _agreed(found, image, band)
    if marks.unknown.any():
        grown = _grown(marks, object_mask, band * max(size) / max(height, width))
        trimap[_enlarged(grown, image) >= 128] = UNKNOWN
    trimap[outside & ~strokes.marked] = BACKGROUND
    trimap[strokes.marked] = strokes.levels[strokes.marked]
    return trimap


def _reduced(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def require_inside(box: Box, height: int, width: int) -> None:
    """Raise InputError unless a box has two pixels a side and lies inside an image of this size."""
    inside = box.x >= 0 and box.y >= 0 and box.x + box.width <= width and box.y + box.height <= height
    if not inside or box.width < 2 or box.height < 2:
        raise InputError(
            "cannot use this box",
            got=f"{box.width}×{box.height} px at {box.x}, {box.y}",
            expected=f"at least 2×2 px inside {width}×{height} px",
            fix="x and y of the upper left corner, then width and height",
        )


def _outside(box: Box | None, height: int, width: int) -> Bool:
    outside = np.zeros((height, width), np.bool_)
    if box is None:
        return outside
    require_inside(box, height, width)
    for taken in (_at_border(box, height, width), box):
        outside[:] = True
        outside[taken.y : taken.y + taken.height, taken.x : taken.x + taken.width] = False
        # A box that would become the whole image stays as it was drawn.
        if outside.any():
            break
    return outside


def _at_border(box: Box, height: int, width: int) -> Box:
    """Return the box with the sides that end hardly before the image's border moved to it."""
    left, right = _stretched(box.x, box.width, width)
    top, bottom = _stretched(box.y, box.height, height)
    return Box(left, top, right - left, bottom - top)


def _stretched(start: int, length: int, whole: int) -> tuple[int, int]:
    slack, end = round(BORDER_SHARE * length), start + length
    return 0 if start <= slack else start, whole if end >= whole - slack else end


def _require_both(foreground: Bool, background: Bool, box: Box | None) -> None:
    missing = [
        kind
        for kind, region in (("foreground", foreground), ("background", background))
        if not region.any() and box is None
    ]
    if missing:
        raise InputError(
            "cannot separate the object from the background",
            got=f"no {' and no '.join(missing)} stroke",
            expected="strokes over both the foreground and the background, or a box around the object",
        )
    if not background.any():
        raise InputError(
            "cannot separate the object from the background",
            got="a box as large as the image",
            expected="a box around the object, or strokes over the background as well",
        )


def _covered(region: Bool, size: tuple[int, int]) -> Bool:
    share = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    # Dots and thin strokes on a large photograph cover little of any small pixel.
    return np.asarray(share > min(LEAST_SHARE, float(share.max()) / 2))


def _agreed(found: list[Bool], image: Image, band: int) -> UInt8:
    """Return a trimap of the image's size: known where all runs agree, farther than a band from others."""
    surest, widest = (
        _enlarged(_binary(region), image) for region in (np.all(found, axis=0), np.any(found, axis=0))
    )
    trimap = np.full(image.shape[:2], UNKNOWN, np.uint8)
    trimap[shrunk(surest >= 128, band)] = FOREGROUND
    trimap[shrunk(widest < 128, band)] = BACKGROUND
    return trimap


def _enlarged(mask: UInt8, image: Image) -> UInt8:
    large = cv2.resize(mask, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return large.astype(np.uint8, copy=False)


def _binary(region: Bool) -> UInt8:
    return np.where(region, 255, 0).astype(np.uint8)


def _grown(marks: Marks, object_mask: UInt8, band: float) -> UInt8:
    """Return uint8 H, W, 255 where unknown strokes widen the unknown region.

    A stroke beside the band shows that the soft border reaches that far. What lies as near to the stroke as
    the stroke lies to the object's border becomes unknown, up to GROWTH bands away. Foreground and background
    strokes that are nearer have precedence.
    """
    edge = cv2.morphologyEx(object_mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    reach = distance(edge) + band / 2
    grown = np.zeros(object_mask.shape, np.bool_)
    # Discs of the few radii below, in place of a disc of another radius around every pixel.
    for radius in np.linspace(band / 2, GROWTH * band, GROWTH_STEPS):
        grown |= distance(marks.unknown & (reach >= radius)) <= radius
    known = marks.foreground | marks.background
    if known.any():
        grown &= distance(marks.unknown) < distance(known)
    return _binary(grown)


def read_strokes(path: Path, *, max_pixels: int) -> Strokes:
    """Read strokes from an image file: white foreground, black background, gray unknown, transparent
    unmarked.

    Raises:
        InputError: not an image, too large, without transparency, or with strokes of other colours.
    """
    pixels = eight_bits(read_rgba(path, noun="scribbles", max_pixels=max_pixels, fix=EXPORT))
    marked = pixels[..., 3] >= 128
    if marked.all():
        raise InputError(
            f"cannot use the scribbles {path}",
            got="no transparent pixel",
            expected="white foreground, black background, gray unknown, transparent where nothing is marked",
            fix=EXPORT,
        )
    darkest, lightest = pixels[..., :3].min(axis=-1), pixels[..., :3].max(axis=-1)
    if (lightest[marked] - darkest[marked] > MOST_COLOUR).any():
        raise InputError(
            f"cannot use the scribbles {path}",
            got="strokes in colours",
            expected="white foreground, black background, gray unknown, transparent where nothing is marked",
            fix="draw in white, black and gray alone",
        )
    levels = np.full(marked.shape, UNKNOWN, np.uint8)
    gray = pixels[..., 1]
    levels[gray >= 192] = FOREGROUND
    levels[gray < 64] = BACKGROUND
    return Strokes(levels, marked)
