"""From image and alpha to the result: matte, cut-out or composite, square by square.

The squares, and so the results, are the same for an image in memory and for a file that is larger.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dim import bit_depth
from dim.arrays import Image
from dim.images.files import read_image, read_metadata
from dim.images.headers import declared_pixels
from dim.images.metadata import Metadata, holds_rgb
from dim_runtime.arrays import Sliceable
from dim_runtime.errors import MemoryLimitError, ProfileWarning
from dim_runtime.memory import RESERVE_BYTES, format_bytes, resident_bytes
from dim_runtime.outputs import foreground
from dim_runtime.outputs.spec import Output, OutputSpec

CHANNELS = {Output.ALPHA: (), Output.CUTOUT: (4,), Output.COMPOSITE: (3,)}
"""Axes after H, W in the shape of a result."""


class Renderer:
    """Makes one result, one :class:`~dim_runtime.outputs.foreground.Tile` at a time.

    Args:
        image: uint8 or uint16 H, W, 3, RGB; anything sliceable.
        alpha: floating H, W in [0, 1]; anything sliceable.
        spec: what is made.

    Raises:
        InputError: a background that cannot be read.
    """

    def __init__(self, image: Sliceable, alpha: Sliceable, spec: OutputSpec) -> None:
        self._image, self._alpha, self._spec = image, alpha, spec
        height, width = alpha.shape
        self._own_depth: bit_depth.Depth = 8 if np.dtype(_dtype(image)) == np.uint8 else 16
        self.depth: bit_depth.Depth = spec.depth or self._own_depth
        self.shape = (height, width, *CHANNELS[spec.output])
        self.dtype = np.dtype(np.uint8 if self.depth == 8 else np.uint16)
        composed = spec.output is Output.COMPOSITE
        self._background: Sliceable | None = backdrop(spec, height, width) if composed else None

    def tile(self, tile: foreground.Tile) -> Image:
        """Return the result in this tile: rows, columns and the result's channels."""
        alpha = self._alpha[tile.rows, tile.columns]
        if self._spec.output is Output.ALPHA:
            return bit_depth.quantise(alpha, self.depth)
        colours = self._colours(tile)
        if self._background is None:
            colours = bit_depth.to_depth(colours, self.depth)
            return foreground.rgba(colours, alpha, premultiplied=self._spec.premultiplied)
        behind = self._background[tile.rows, tile.columns]
        blended = foreground.composite(colours, alpha, behind, linear_light=self._spec.linear_light)
        return bit_depth.to_depth(blended, self.depth)

    def _colours(self, tile: foreground.Tile) -> Image:
        """Return the foreground's colours in the finer of the two depths, so that rounding comes last."""
        working: bit_depth.Depth = 16 if 16 in (self.depth, self._own_depth) else 8
        if not self._spec.estimates:
            return bit_depth.to_depth(self._image[tile.rows, tile.columns], working)
        seen = tile.outer_rows, tile.outer_columns
        return foreground.tile_foreground(
            bit_depth.to_depth(self._image[seen], working), self._alpha[seen], tile
        )


def _dtype(image: Any) -> Any:
    return image.dtype


def render(image: Sliceable, alpha: Sliceable, spec: OutputSpec) -> Image:
    """Return a whole result: uint8 or uint16, H, W (matte), H, W, 4 (cut-out) or H, W, 3 (composite)."""
    renderer = Renderer(image, alpha, spec)
    result: Image = np.empty(renderer.shape, renderer.dtype)
    for tile in foreground.tiles(*alpha.shape):
        result[tile.rows, tile.columns] = renderer.tile(tile)
    return result


def backdrop(spec: OutputSpec, height: int, width: int) -> Sliceable:
    """Return the background of a composite, H, W, 3: a colour, or an image scaled to cover and cropped."""
    path = spec.background_file
    if path is None:
        return np.broadcast_to(
            np.array(foreground.parse_colour(spec.background), np.uint8), (height, width, 3)
        )
    image = read_image(path, max_pixels=spec.max_pixels)
    if image.shape[0] < height or image.shape[1] < width:
        return Enlarged(image, height, width)
    return foreground.covering(image, height, width)


class Enlarged:
    """A small image enlarged until it covers height × width and cropped around its middle, when it is read.

    Bicubic, with pixel centres at halves as ``cv2.resize`` has them.
    """

    def __init__(self, image: Image, height: int, width: int) -> None:
        self._image, self.shape = image, (height, width, 3)
        self._scale = max(height / image.shape[0], width / image.shape[1])

    def __getitem__(self, key: tuple[slice, slice]) -> Image:
        rows, columns = (self._sources(part, axis) for axis, part in enumerate(key))
        (top, y), (left, x) = rows, columns
        part = self._image[top : top + math.ceil(y[-1]) + 4, left : left + math.ceil(x[-1]) + 4]
        found: Image = cv2.remap(  # type: ignore[assignment]
            part,
            np.tile(x, (len(y), 1)),
            np.repeat(y[:, None], len(x), 1),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return found

    def _sources(self, part: slice, axis: int) -> tuple[int, npt.NDArray[np.float32]]:
        """Return the first row (or column) needed, and the positions of the requested ones from it."""
        own, enlarged = self._image.shape[axis], self.shape[axis]
        middle = (own * self._scale - enlarged) / 2
        position = (np.arange(part.start, part.stop) + middle + 0.5) / self._scale - 0.5
        first = max(math.floor(position[0]) - 2, 0)
        return first, (position - first).astype(np.float32)


TILE_BYTES = 60
"""Bytes of a tile per pixel: image, background and result in 16 bits, and the blend in float32."""
BACKGROUND_BYTES = 12
"""Bytes of a background's image per pixel: RGB of 16 bits, as it is read and scaled."""
ESTIMATOR_LIBRARY_BYTES = 180 * 10**6
"""Bytes that pymatting, its compiler and their compiled code take when they are imported."""


def whole_bytes(spec: OutputSpec, image: Image) -> int:
    """Return the memory of a result that is made and encoded as a whole, and of its alpha; bytes."""
    depth: int = spec.depth or bit_depth.depth_of(image)
    made = math.prod(CHANNELS[spec.output]) * depth // 8
    # The result, its copy in the encoder's order of colours, and the encoded file, which is copied once.
    return (4 + 4 * made) * int(image.shape[0] * image.shape[1])


def require_room(limit: int | None, spec: OutputSpec, *, held: int) -> None:
    """Raise MemoryLimitError if making the result takes more than the limit.

    Args:
        limit: peak resident memory of the process, bytes; None for no limit.
        spec: what is made.
        held: memory that will be held beside what is resident now, the result included; bytes.
    """
    needed = resident_bytes() + held + TILE_BYTES * foreground.TILE**2
    if spec.background_file is not None:
        needed += BACKGROUND_BYTES * (declared_pixels(spec.background_file) or 0)
    if spec.estimates:
        seen = foreground.TILE + 2 * foreground.OVERLAP
        needed += ESTIMATOR_LIBRARY_BYTES + foreground.ESTIMATOR_BYTES * seen**2
    if limit is not None and needed > limit:
        needed += RESERVE_BYTES
        raise MemoryLimitError(
            f"cannot make the {spec.output} below this memory limit",
            minimum=needed,
            got=f"{limit} bytes ({format_bytes(limit)})",
            expected=f"at least {needed} bytes ({format_bytes(needed)})",
            why="the colours of the foreground are estimated" if spec.estimates else "it is made in memory",
            fix=f"memory_limit={needed} (--memory-limit {format_bytes(needed)})",
        )


def kept_metadata(image_path: Path, found: Metadata, spec: OutputSpec) -> Metadata:
    """Return the metadata that a result keeps of its image; none for a matte, which has no colours.

    Args:
        image_path: names the image in warnings.
        found: metadata of the image file.
        spec: what is made.

    Warns:
        ProfileWarning: the ICC profile is not one of RGB, or not that of the background.
    """
    if spec.output is Output.ALPHA:
        return Metadata()
    _warn_of_another_background(found.profile, spec)
    if found.profile is None or holds_rgb(found.profile):
        return found
    warnings.warn(
        ProfileWarning(f"the ICC profile of {image_path} is not kept: it is not one of RGB, the result is"),
        stacklevel=2,
    )
    return found._replace(profile=None)


def _warn_of_another_background(profile: bytes | None, spec: OutputSpec) -> None:
    path = spec.background_file
    if path is not None and read_metadata(path, max_pixels=spec.max_pixels).profile != profile:
        text = f"the ICC profile of {path} is another than the image's: its colours are taken as the image's"
        warnings.warn(ProfileWarning(text), stacklevel=3)
