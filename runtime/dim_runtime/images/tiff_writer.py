"""TIFF files of any size, written tile by tile (extra ``tiff``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dim.arrays import Image
from dim.images.metadata import INCH, Metadata
from dim.images.tiff_reader import require_tifffile

CLASSIC_LIMIT = 2**32 - 2**26
"""Bytes of pixels from which offsets of 32 bits may not do: compression can also make a file larger."""


def write_tiff(
    path: Path,
    tiles: Iterator[Image],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    side: int,
    metadata: Metadata | None = None,
    premultiplied: bool = False,
) -> None:
    """Write a deflate-compressed, tiled TIFF, or BigTIFF where it must be; in memory is one tile at a time.

    Args:
        path: overwritten.
        tiles: row by row, each ``side`` by ``side`` or smaller at the right and bottom; consumed as it is
            written.
        shape: H, W, or H, W, 3 (RGB), or H, W, 4 (RGBA).
        dtype: uint8 or uint16.
        side: of a tile, pixels; a multiple of 16.
        metadata: profile and density that the file keeps.
        premultiplied: whether RGBA colours are stored times alpha.
    """
    library = require_tifffile(f"write {path} tile by tile")
    kept = Metadata() if metadata is None else metadata
    alpha = ["assocalpha" if premultiplied else "unassalpha"] if shape[2:] == (4,) else None
    with library.TiffWriter(path, bigtiff=math.prod(shape) * dtype.itemsize > CLASSIC_LIMIT) as writer:
        writer.write(
            tiles,
            shape=shape,
            dtype=dtype,
            tile=(side, side),
            photometric="rgb" if len(shape) == 3 else "minisblack",
            planarconfig="contig" if len(shape) == 3 else None,
            extrasamples=alpha,
            compression="zlib",
            predictor=True,
            iccprofile=kept.profile,
            resolution=None if kept.density is None else tuple(side * INCH for side in kept.density),
            resolutionunit=None if kept.density is None else 2,
            metadata=None,
            maxworkers=1,
        )
