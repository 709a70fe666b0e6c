"""Rules that make one plane of a decoded file: trimap, mask or alpha. The only place where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dim.arrays import Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError

GRAY_TOLERANCE = 8
"""Levels by which the channels of a gray pixel may differ, of 255: lossy files mix them."""
TRIMAP = "gray: 0 background, 128 unknown, 255 foreground"
"""Values of a trimap, for error messages."""
MASK = "gray with the object at 128 or more of 255, black and one other colour, or an alpha channel"
ALPHA = "gray from 0 to 255 (8 bits) or 65535 (16 bits), or an alpha channel"


def trimap_plane(pixels: Image, path: Path) -> UInt8:
    """Return the values of a trimap, uint8 H, W; an alpha channel must be opaque.

    Args:
        pixels: uint8 or uint16 H, W, samples: gray, gray and alpha, RGB, or RGB and alpha.
        path: names the file in errors.

    Raises:
        InputError: colours, transparent pixels, or 16-bit samples on the scale of 8 bits.
    """
    levels = trimap_levels(pixels, path)
    require_trimap_scale(levels.dtype, int(levels.max()), path)
    return eight_bits(levels)


def trimap_levels(pixels: Image, path: Path) -> Image:
    """Return the values of a trimap or of a part of one, uint8 or uint16 H, W, whatever their scale.

    Raises:
        InputError: colours, or transparent pixels.
    """
    colours, alpha = split(pixels)
    if alpha is not None and int(alpha.min()) < np.iinfo(alpha.dtype).max:
        raise InputError(
            f"cannot use the trimap {path}",
            got="an alpha channel with transparent pixels",
            expected=TRIMAP,
            why="it is unclear whether the trimap is in the colours or in the alpha channel",
            fix="save the trimap as gray, without an alpha channel",
        )
    return _gray(colours, path, "trimap", TRIMAP)


def require_trimap_scale(dtype: np.dtype[Any], largest: int, path: Path) -> None:
    """Raise an InputError if a trimap of 16 bits holds only values of 8 bits.

    Args:
        dtype: type of the samples.
        largest: largest value of the whole trimap.
        path: names the file.
    """
    _require_full_scale(dtype, largest, path, "trimap", TRIMAP)


def mask_plane(pixels: Image, path: Path) -> UInt8:
    """Return a mask, uint8 H, W, whose object has 128 and more.

    An alpha channel that is not constant is the mask. Otherwise, of two colours of which one is black, the
    other is the object, whatever its value. Everything else must be gray.

    Args:
        pixels: as in :func:`trimap_plane`.
        path: names the file in errors.

    Raises:
        InputError: several colours, another scale, or a mask without object or without background.
    """
    colours, alpha = split(pixels)
    if alpha is not None and alpha.min() != alpha.max():
        plane: Image = alpha
    else:
        silhouette = _silhouette(colours)
        plane = _gray(colours, path, "mask", MASK) if silhouette is None else silhouette
    mask = _on_full_scale(plane, path, "mask", MASK)
    darkest, lightest = int(mask.min()), int(mask.max())
    if lightest < 128 or darkest >= 128:
        missing = "object" if lightest < 128 else "background"
        raise InputError(
            f"cannot use the mask {path}",
            got=f"levels from {darkest} to {lightest} of 255: no {missing}",
            expected=MASK,
        )
    return mask


def alpha_plane(pixels: Image, path: Path) -> UInt8:
    """Return an alpha matte, uint8 H, W: an alpha channel that is not constant, or else gray colours.

    Args:
        pixels: as in :func:`trimap_plane`.
        path: names the file in errors.

    Raises:
        InputError: colours, or another scale.
    """
    colours, alpha = split(pixels)
    if alpha is not None and alpha.min() != alpha.max():
        return eight_bits(alpha)
    plane = _on_full_scale(_gray(colours, path, "alpha", ALPHA), path, "alpha", ALPHA)
    if int(plane.max()) == 1:
        raise InputError(f"cannot use the alpha {path}", got="only 0 and 1", expected=ALPHA)
    return plane


def split(pixels: Image) -> tuple[Image, Image | None]:
    """Return the colours, H, W, 1 or 3, and the alpha, H, W, of decoded samples; None without alpha."""
    samples = pixels.shape[2]
    if samples in (2, 4):
        return pixels[..., :-1], pixels[..., -1]
    return pixels, None


def _silhouette(colours: Image) -> Image | None:
    """Return 255 where two colours, one of them black, are not black; None for other images."""
    lit = colours.any(axis=2)
    places = np.flatnonzero(lit)
    if not 0 < len(places) < lit.size:
        return None
    first = colours.reshape(-1, colours.shape[2])[places[0]]
    if not (colours[lit] == first).all():
        return None
    return np.where(lit, np.uint8(255), np.uint8(0))


def _gray(colours: Image, path: Path, noun: str, expected: str) -> Image:
    """Return gray H, W of H, W, 1 or 3; InputError if the channels differ."""
    if colours.shape[2] == 1:
        return np.ascontiguousarray(colours[..., 0])
    tolerance = GRAY_TOLERANCE * (int(np.iinfo(colours.dtype).max) // 255)
    middle = np.ascontiguousarray(colours[..., 1])
    for other in (0, 2):
        channel: Any = np.ascontiguousarray(colours[..., other])
        if int(cv2.absdiff(channel, middle).max()) > tolerance:
            raise InputError(
                f"cannot use the {noun} {path}",
                got="colours",
                expected=expected,
                fix=f"a photograph is the image, with the {noun} beside it; where there is no {noun}: "
                "a box or scribbles (dim-matte auto --box X,Y,W,H, --scribbles FILE)",
            )
    return middle


def _on_full_scale(plane: Image, path: Path, noun: str, expected: str) -> UInt8:
    """Return a plane in 8 bits; InputError if its 16 bits hold only values of 8 bits."""
    _require_full_scale(plane.dtype, int(plane.max()), path, noun, expected)
    return eight_bits(plane)


def _require_full_scale(dtype: np.dtype[Any], largest: int, path: Path, noun: str, expected: str) -> None:
    if dtype == np.uint16 and 0 < largest <= 255:
        raise InputError(
            f"cannot use the {noun} {path}",
            got=f"16-bit samples from 0 to {largest}: the scale of 8 bits",
            expected=expected,
            why="white is 65535 in 16 bits",
            fix="save it with 8 bits, or multiply its values by 257",
        )
