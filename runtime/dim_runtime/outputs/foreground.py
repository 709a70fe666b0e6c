"""Foreground colours, cut-outs and composites of an alpha matte.

Images are uint8 or uint16 H, W, 3, RGB; alpha is floating point H, W in [0, 1].
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Float32, Floating, Image
from dim.bit_depth import depth_of, quantise, to_depth
from dim.errors import InputError, MissingExtraError

LOGGER = logging.getLogger(__name__)
_ESTIMATOR = threading.Lock()
"""One estimate at a time, which uses all cores: where numba has neither OpenMP nor TBB, two threads in its
parallel code end the process."""

Colour = tuple[int, int, int]
"""R, G, B on the scale 0-255."""


STRIP = 256
"""Rows that are blended together, because floats take four times the memory of the image."""
TILE = 1024
"""Side of the squares whose foreground colours are estimated together, pixels."""
OVERLAP = 128
"""Pixels around a square that its estimate uses. The method carries colours over short distances only."""
ESTIMATOR_BYTES = 80
"""Bytes of an estimate per pixel used: image, foreground and background in float32, twice, and alpha."""
PATIENCE = 5.0
"""Seconds that the import of pymatting may take before the wait is explained. From its cache it takes one."""
COMPILING = (
    "pymatting compiles its code, once for this installation: about a minute "
    "(--foreground image keeps the photograph's own colours and needs none of it)"
)


def require_estimator() -> None:
    """Raise MissingExtraError if pymatting is not installed; does not import it."""
    if find_spec("pymatting") is None:
        raise MissingExtraError(
            "estimate foreground colours (--foreground image keeps the photograph's own)",
            package="pymatting",
            extra="cutout",
        )


class Tile(NamedTuple):
    """A square of the image and its surroundings; slices of rows and columns.

    Attributes:
        rows, columns: the square itself.
        outer_rows, outer_columns: the same with :data:`OVERLAP` pixels around it, inside the image.
    """

    rows: slice
    columns: slice
    outer_rows: slice
    outer_columns: slice

    @property
    def inside(self) -> tuple[slice, slice]:
        """The square's place inside the outer rows and columns."""
        pairs = ((self.rows, self.outer_rows), (self.columns, self.outer_columns))
        rows, columns = (slice(own.start - seen.start, own.stop - seen.start) for own, seen in pairs)
        return rows, columns


def tiles(height: int, width: int) -> Iterator[Tile]:
    """Yield squares of :data:`TILE` pixels that cover an image once, row by row."""
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            (rows, seen_rows), (columns, seen_columns) = _grown(y, height), _grown(x, width)
            yield Tile(rows, columns, seen_rows, seen_columns)


def _grown(start: int, side: int) -> tuple[slice, slice]:
    stop = min(start + TILE, side)
    return slice(start, stop), slice(max(start - OVERLAP, 0), min(stop + OVERLAP, side))


def tile_foreground(image: Image, alpha: Floating, tile: Tile) -> Image:
    """Estimate the colours of the foreground alone in one tile, from the tile and the pixels around it.

    Multi-level estimation (Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020) by pymatting,
    in 32-bit floats. Call :func:`require_estimator` before.

    Args:
        image: uint8 or uint16; the tile's outer rows, outer columns, 3; RGB.
        alpha: floating; outer rows, outer columns; in [0, 1].
        tile: the place of both in the whole image.

    Returns:
        rows, columns, 3 in the image's dtype. Where alpha is 1 the image's own colours; where it is 0 and no
        mixed pixel is in the tile, black. An image of one pixel keeps its colour.
    """
    own, own_alpha = image[tile.inside], alpha[tile.inside]
    solid = own_alpha == 1
    if not np.any((own_alpha > 0) & ~solid):
        return np.where(solid[..., None], own, own.dtype.type(0))
    if alpha.size == 1:
        # One pixel has no neighbours to estimate from: pymatting divides by a number of levels that is 0.
        return own
    _avoid_shared_tbb()
    # Imported here: it compiles its kernels on import.
    with _explained_wait(COMPILING, PATIENCE):
        from pymatting import estimate_foreground_ml

    depth = depth_of(image)
    colours = image / np.float32(2**depth - 1)
    with _ESTIMATOR:
        estimated = np.asarray(estimate_foreground_ml(colours, alpha))[tile.inside]
    return np.where(solid[..., None], own, quantise(np.clip(estimated, 0, 1), depth))


@contextmanager
def _explained_wait(text: str, seconds: float) -> Iterator[None]:
    """Log a warning if the block takes longer than this."""
    timer = threading.Timer(seconds, LOGGER.warning, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _avoid_shared_tbb() -> None:
    """Make numba, which pymatting uses, prefer OpenMP if OpenVINO's TBB is loaded.

    Numba would use that TBB for its own threads. A process with both was seen to wait forever for TBB's
    threads when it ended.
    """
    if "openvino" in sys.modules:
        import numba

        config: Any = numba.config
        if config.THREADING_LAYER_PRIORITY[0] == "tbb":
            config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def rgba(foreground: Image, alpha: Floating, *, premultiplied: bool = False) -> Image:
    """Join colours and alpha to a cut-out, H, W, 4 in the foreground's dtype.

    Args:
        foreground: uint8 or uint16 H, W, 3, RGB.
        alpha: floating H, W in [0, 1].
        premultiplied: colours are stored times alpha; otherwise alpha is straight and they are stored as
            they are.
    """
    _require_same_size(foreground, alpha)
    if premultiplied:
        foreground = composite(foreground, alpha, (0, 0, 0))
    cut: Image = np.dstack([foreground, quantise(alpha, depth_of(foreground))])
    return cut


def composite(
    foreground: Image, alpha: Floating, background: Image | Colour, *, linear_light: bool = False
) -> Image:
    """Blend F over B: alpha · F + (1 − alpha) · B, in the foreground's dtype, halves to even.

    Args:
        foreground: uint8 or uint16 H, W, 3, RGB.
        alpha: floating H, W in [0, 1].
        background: uint8 or uint16 of the same size, or one colour.
        linear_light: blend light instead of the stored values: both are decoded with the curve of sRGB
            before, and the result is encoded with it after.
    """
    _require_same_size(foreground, alpha)
    if isinstance(background, np.ndarray):
        _require_same_size(background, alpha)
    else:
        background = _plain(background, foreground.shape)
    blend = _blend_light if linear_light else _blend
    result = np.empty_like(foreground)
    for y in range(0, len(alpha), STRIP):
        rows = slice(y, y + STRIP)
        behind = to_depth(background[rows], depth_of(foreground))
        result[rows] = blend(foreground[rows], alpha[rows, :, None].astype(np.float32), behind)
    return result


def _blend(front: Image, weight: Float32, behind: Image) -> Float32:
    values = behind.astype(np.float32)
    values += weight * (front - values)
    return np.rint(values, out=values)


def _blend_light(front: Image, weight: Float32, behind: Image) -> Float32:
    scale = 2 ** depth_of(front) - 1
    light = decode_srgb(np.divide(behind, scale, dtype=np.float32))
    light += weight * (decode_srgb(np.divide(front, scale, dtype=np.float32)) - light)
    values: Float32 = encode_srgb(light) * np.float32(scale)
    return np.rint(values, out=values)


def decode_srgb(encoded: Float32) -> Float32:
    """Convert stored values in [0, 1] to linear light in [0, 1]; IEC 61966-2-1."""
    curve = ((encoded + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(encoded <= 0.04045, encoded / np.float32(12.92), curve)


def encode_srgb(light: Float32) -> Float32:
    """Convert linear light in [0, 1] to stored values in [0, 1]; the inverse of :func:`decode_srgb`."""
    curve = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= 0.0031308, light * np.float32(12.92), curve)


def _plain(colour: Colour, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return an image of one colour that takes three bytes."""
    return np.broadcast_to(np.array(colour, np.uint8), shape)


def covering(background: Image, height: int, width: int) -> Image:
    """Scale the background until it covers height × width, and crop it around its middle."""
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
    """Parse ``"#RRGGBB"``, or ``"#RGB"`` as CSS has it, to R, G, B; InputError for other texts."""
    if re.fullmatch(r"#([0-9A-Fa-f]{3}){1,2}", text) is None:
        raise InputError(
            "cannot read this colour", got=repr(text), expected="#RRGGBB or #RGB, such as #00FF00"
        )
    digits = text[1:] if len(text) == 7 else "".join(digit * 2 for digit in text[1:])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _require_same_size(image: Image, alpha: Floating) -> None:
    (height, width), (rows, columns) = image.shape[:2], alpha.shape
    if (height, width) != (rows, columns):
        raise InputError(
            "image and alpha differ in size",
            got=f"image of {width}×{height} px, alpha of {columns}×{rows} px",
            expected="the same size",
        )
