"""Images and trimaps that are read from TIFF files window by window, so that they are never in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from dim.arrays import Image, UInt8
from dim.images.planes import trimap_plane
from dim.images.tiff_reader import TiffReader


class TiffImage:
    """An image by slices, from a :class:`TiffReader`: uint8 or uint16 H, W, 3, RGB."""

    def __init__(self, reader: TiffReader) -> None:
        self._reader = reader
        self.shape = (*reader.shape[:2], 3)
        self.dtype, self.buffer_bytes = reader.dtype, reader.buffer_bytes

    def __getitem__(self, key: Any) -> Image:
        found = self._reader[key]
        return np.repeat(found[..., :1], 3, axis=2) if found.shape[2] < 3 else found[..., :3]


class TiffTrimap:
    """A trimap by slices, from a :class:`TiffReader`: uint8 H, W.

    Attributes:
        largest: largest value of the slices that were read.

    Raises:
        InputError: transparent pixels, or colours, in the slice that is read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, reader: TiffReader) -> None:
        self._reader = reader
        self.largest = 0
        self.shape, self.buffer_bytes = reader.shape[:2], reader.buffer_bytes

    def __getitem__(self, key: Any) -> UInt8:
        levels = trimap_plane(self._reader[key], self._reader.path)
        self.largest = max(self.largest, int(levels.max(initial=0)))
        return levels
