"""The trimap: which pixels are certainly background, certainly foreground, or unknown.

Canonical form: uint8 H, W with 0 background, 128 unknown, 255 foreground.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import UInt8
from dim.errors import InputError
from dim.images import MAX_PIXELS, read_trimap
from dim.images.planes import TRIMAP

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255

DARKEST_UNKNOWN, LIGHTEST_UNKNOWN = 11, 244
"""Tolerant reading: at most 10 is background, at least 245 is foreground (lossy files, soft brushes)."""

ARRAY = "in this array"
"""Name of a trimap that is no file, for error messages."""

Numbers = TypeVar("Numbers", bound=npt.NDArray[Any])


class Reading(NamedTuple):
    """A canonical trimap, and how many pixels had another value before."""

    trimap: UInt8
    mapped: int


def validate(trimap: object) -> UInt8:
    """Return the array if it is uint8 H, W with at least one pixel; raise InputError otherwise."""
    if not isinstance(trimap, np.ndarray):
        raise InputError(
            "cannot use this trimap", got=type(trimap).__name__, expected="a numpy array, uint8 H, W"
        )
    if trimap.dtype != np.uint8 or trimap.ndim != 2 or trimap.size == 0:
        raise InputError(
            "cannot use this trimap",
            got=f"{trimap.dtype} with shape {trimap.shape}",
            expected="uint8 H, W: 0 background, 128 unknown, 255 foreground",
            fix="for a colour file take one channel; for a float array use (x * 255).round().astype('uint8')",
        )
    return trimap


def canonical(trimap: UInt8) -> Reading:
    """Map every value to 0, 128 or 255: at most 10 is background, at least 245 foreground, else unknown."""
    validate(trimap)
    table = np.full(256, UNKNOWN, np.uint8)
    table[:DARKEST_UNKNOWN] = BACKGROUND
    table[LIGHTEST_UNKNOWN + 1 :] = FOREGROUND
    known = sum(int(np.count_nonzero(trimap == value)) for value in (BACKGROUND, UNKNOWN, FOREGROUND))
    mapped = trimap.size - known
    return Reading(trimap if mapped == 0 else cv2.LUT(trimap, table).astype(np.uint8, copy=False), mapped)


def read(source: str | Path | UInt8, *, max_pixels: int = MAX_PIXELS) -> Reading:
    """Read a trimap tolerantly.

    Args:
        source: a file as :func:`dim.images.read_trimap` takes it, or an array uint8 H, W.
        max_pixels: larger files are refused, before they are decoded.

    Raises:
        InputError: a file that cannot be used, or values on another scale: see :func:`require_scale`.
    """
    levels = source if isinstance(source, np.ndarray) else read_trimap(source, max_pixels=max_pixels)
    reading = canonical(levels)
    require_scale(levels, ARRAY if isinstance(source, np.ndarray) else str(source))
    return reading


def require_scale(levels: UInt8, source: str) -> None:
    """Raise an InputError if every value means background: labels such as 0, 1, 2, or an empty trimap.

    Args:
        levels: uint8 H, W.
        source: names the trimap in the error.
    """
    largest = int(levels.max())
    if largest < DARKEST_UNKNOWN:
        found = ", ".join(map(str, np.unique(levels)))
        raise InputError(
            f"cannot use the trimap {source}",
            got=f"only {found}: nothing is unknown and nothing is foreground",
            expected=TRIMAP,
            why="the values are labels, on another scale" if largest else "all of the image is background",
            fix="map the labels to 0, 128 and 255" if largest else None,
        )


def require_unknown(trimap: UInt8, source: str) -> None:
    """Raise an InputError if a trimap has no unknown pixels, where only these are scored or learnt from.

    Args:
        trimap: canonical, uint8 H, W.
        source: names the trimap in the error.
    """
    if not unknown(trimap).any():
        raise InputError(
            f"cannot use the trimap {source}",
            got="no unknown pixels",
            expected=TRIMAP,
            why="only unknown pixels are scored; a binary mask is not a trimap",
            fix="make a trimap of a mask with: dim-matte trimap MASK -o TRIMAP",
        )


def from_alpha(alpha: UInt8, *, erode: int, dilate: int) -> UInt8:
    """Make the trimap of an alpha matte by morphology, as DIM's training does it.

    Args:
        alpha: uint8 H, W.
        erode: side of the elliptical element that shrinks the foreground, pixels; 1 leaves it.
        dilate: side of the element that shrinks the background, pixels; 1 leaves it.

    Returns:
        uint8 H, W: 255 where the eroded alpha is 255, 0 where the dilated alpha is 0, 128 elsewhere.

    Raises:
        InputError: another type or shape, or a side below 1.
    """
    validate(alpha)
    eroded = cv2.erode(alpha, ellipse(erode))
    dilated = cv2.dilate(alpha, ellipse(dilate))
    trimap = np.full(alpha.shape, UNKNOWN, np.uint8)
    trimap[eroded == 255] = FOREGROUND
    trimap[dilated == 0] = BACKGROUND
    return trimap


def from_mask(mask: UInt8, *, inside: int = 10, outside: int = 10) -> UInt8:
    """Make the trimap of a binary mask: a band of unknown pixels on both sides of its border.

    Args:
        mask: uint8 H, W; 128 and more is object.
        inside: width of the band on the object's side, pixels.
        outside: width of the band on the background's side, pixels.

    Returns:
        uint8 H, W: 0, 128, 255.

    Raises:
        InputError: another type or shape, or a negative width.
    """
    validate(mask)
    if inside < 0 or outside < 0:
        raise InputError(
            "cannot make a trimap", got=f"band of {inside} and {outside} px", expected="0 or more"
        )
    binary = np.where(mask >= 128, 255, 0).astype(np.uint8)
    return from_alpha(binary, erode=2 * inside + 1, dilate=2 * outside + 1)


def ellipse(side: int) -> UInt8:
    """Return an elliptical structuring element, uint8 side, side of 0 and 1; its anchor is ``side // 2``.

    Raises:
        InputError: a side below 1.
    """
    if side < 1:
        raise InputError("cannot make a trimap", got=f"element of side {side}", expected="1 or more")
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8, copy=False)


def apply_known(alpha: Numbers, trimap: UInt8) -> Numbers:
    """Return a copy of an alpha that agrees with the known pixels of a canonical trimap.

    Args:
        alpha: floating point in [0, 1], or unsigned integers on their whole scale; any shape.
        trimap: uint8 in the same shape.

    Returns:
        The alpha with 0 where the trimap is background, and 1 (integers: their largest value) where it is
        foreground, in its own dtype.
    """
    opaque = 1 if np.issubdtype(alpha.dtype, np.floating) else np.iinfo(alpha.dtype).max
    known = alpha.copy()
    known[trimap == BACKGROUND] = 0
    known[trimap == FOREGROUND] = opaque
    return known


def unknown(trimap: UInt8) -> npt.NDArray[np.bool_]:
    """Return where the trimap is neither 0 nor 255; boolean H, W."""
    found: npt.NDArray[np.bool_] = (trimap != BACKGROUND) & (trimap != FOREGROUND)
    return found
