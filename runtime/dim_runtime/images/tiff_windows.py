"""Images and trimaps that are read from TIFF files window by window, so that they are never in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

import dim.trimap
from dim.arrays import Image, UInt8
from dim.bit_depth import eight_bits
from dim.images.planes import require_trimap_scale, trimap_levels
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

    Raises:
        InputError: transparent pixels, or colours, in the slice that is read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, reader: TiffReader) -> None:
        self._reader = reader
        self._largest = 0
        self._levels: set[int] = set()
        self.shape, self.buffer_bytes = reader.shape[:2], reader.buffer_bytes

    def __getitem__(self, key: Any) -> UInt8:
        samples = trimap_levels(self._reader[key], self._reader.path)
        levels = eight_bits(samples)
        self._largest = max(self._largest, int(samples.max(initial=0)))
        lightest = int(levels.max(initial=0))
        # Which values a slice has matters only if all of them mean background.
        is_background = lightest < dim.trimap.DARKEST_UNKNOWN
        self._levels.update(np.unique(levels).tolist() if is_background else [lightest])
        return levels

    def require_scale(self) -> None:
        """Raise the InputError of a trimap on another scale; to be called when all slices were read."""
        require_trimap_scale(self._reader.dtype, self._largest, self._reader.path)
        dim.trimap.require_scale(np.array([sorted(self._levels)], np.uint8), str(self._reader.path))
