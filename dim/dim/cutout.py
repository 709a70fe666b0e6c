"""What is made of an alpha matte: foreground colours, cut-outs with straight alpha, composites.

Images are uint8 or uint16 H, W, 3, RGB; alpha is floating point H, W in [0, 1].
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from dim.errors import InputError, MissingExtraError

Image = npt.NDArray[np.uint8 | np.uint16]
Alpha = npt.NDArray[np.floating[Any]]
Colour = tuple[int, int, int]
"""R, G, B on the scale 0-255."""
Depth = Literal[8, 16]
"""Bits of a sample."""

STRIP = 256
"""Rows that are blended together: floats take four times the memory of the image."""


def quantise(alpha: Alpha, depth: Depth) -> Image:
    """Alpha in [0, 1] as whole numbers of 8 or 16 bits; halves go to the even neighbour."""
    scaled = np.multiply(alpha, 2**depth - 1, dtype=np.float32)
    np.rint(scaled, out=scaled)
    levels: Image = scaled.astype(_dtype(depth))
    return levels


def to_depth(image: Image, depth: Depth) -> Image:
    """The image in 8 or 16 bits: times 257, or divided by 257 and rounded (there are no ties)."""
    if depth_of(image) == depth:
        return image
    if depth == 16:
        return image.astype(np.uint16) * np.uint16(257)
    return eight_bits(image)


def eight_bits(image: Image) -> npt.NDArray[np.uint8]:
    """:func:`to_depth` with 8 bits."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _dtype(depth: Depth) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if depth == 8 else np.uint16


def depth_of(image: Image) -> Depth:
    """Bits of a sample: 8 for uint8, 16 for uint16."""
    return 8 if image.dtype == np.uint8 else 16


def require_estimator() -> None:
    """MissingExtraError if foreground colours cannot be estimated here; costs nothing otherwise."""
    if find_spec("pymatting") is None:
        raise MissingExtraError(
            "estimate foreground colours (--foreground image keeps the photograph's own)",
            package="pymatting",
            extra="cutout",
        )


def estimate_foreground(image: Image, alpha: Alpha) -> Image:
    """Colours of the foreground alone, where the photograph shows it mixed with the background.

    Multi-level estimation (Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020) by pymatting.

    Returns:
        H, W, 3 in the image's dtype; meaningful where alpha is above 0.

    Raises:
        InputError: image and alpha differ in size.
        MissingExtraError: pymatting is not installed.
    """
    _require_same_size(image, alpha)
    require_estimator()
    # Imported here: it compiles its kernels on import.
    from pymatting import estimate_foreground_ml

    scale = 2 ** depth_of(image) - 1
    estimated = np.asarray(estimate_foreground_ml(image / np.float32(scale), alpha))
    return quantise(np.clip(estimated, 0, 1), depth_of(image))


def rgba(foreground: Image, alpha: Alpha) -> Image:
    """A cut-out: H, W, 4 in the foreground's dtype, straight (not premultiplied) alpha."""
    _require_same_size(foreground, alpha)
    cut: Image = np.dstack([foreground, quantise(alpha, depth_of(foreground))])
    return cut


def composite(foreground: Image, alpha: Alpha, background: Image | Colour) -> Image:
    """Foreground over background: alpha · F + (1 − alpha) · B, in the foreground's dtype, halves to even.

    Args:
        foreground: H, W, 3.
        background: an image of the same size, 8 or 16 bit, or one colour.
    """
    _require_same_size(foreground, alpha)
    if isinstance(background, np.ndarray):
        _require_same_size(background, alpha)
    else:
        background = _plain(background, foreground.shape)
    result = np.empty_like(foreground)
    for y in range(0, len(alpha), STRIP):
        rows = slice(y, y + STRIP)
        behind = to_depth(background[rows], depth_of(foreground)).astype(np.float32)
        weight = alpha[rows, :, None].astype(np.float32)
        result[rows] = np.rint(behind + weight * (foreground[rows] - behind))
    return result


def _plain(colour: Colour, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An image of one colour that takes three bytes."""
    return np.broadcast_to(np.array(colour, np.uint8), shape)


def covering(background: Image, height: int, width: int) -> Image:
    """The background enlarged or reduced until it covers height × width, and cropped around its middle."""
    scale = max(height / background.shape[0], width / background.shape[1])
    rows, columns = (
        max(side, round(old * scale)) for side, old in zip((height, width), background.shape, strict=False)
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(background, (columns, rows), interpolation=method)
    y, x = (rows - height) // 2, (columns - width) // 2
    cropped: Image = resized[y : y + height, x : x + width].astype(background.dtype, copy=False)
    return cropped


def parse_colour(text: str) -> Colour:
    """``"#RRGGBB"`` -> R, G, B; InputError otherwise."""
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", text) is None:
        raise InputError("cannot read this colour", got=repr(text), expected="#RRGGBB, such as #00FF00")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _require_same_size(image: Image, alpha: Alpha) -> None:
    (height, width), (rows, columns) = image.shape[:2], alpha.shape
    if (height, width) != (rows, columns):
        raise InputError(
            "image and alpha differ in size",
            got=f"image of {width}×{height} px, alpha of {columns}×{rows} px",
            expected="the same size",
        )
