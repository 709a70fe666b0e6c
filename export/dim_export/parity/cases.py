"""The images that an artefact is judged on, and how the runtime cuts them.

Three kinds: cuts of the shipped photograph, in sizes that break careless code; a synthetic image full of
ties, which photographs do not have in every place; and photographs of the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dim import trimap as trimaps
from dim.arrays import UInt8
from dim.contract import ArtefactMetadata
from dim.trimap import BACKGROUND, UNKNOWN
from dim_runtime.images.pairs import read_samples
from dim_runtime.images.samples import lemur
from dim_runtime.planning.planner import DEFAULT_TILE

LARGE_TILE = DEFAULT_TILE
_CUTS = (("multiple of 32", 288, 416), ("odd, upright", 333, 251), ("small", 45, 61), ("tiny", 17, 31))
"""Name, height, width of the cases that are cut out of the photograph."""
_TIES_SIZE = (192, 416)
_TIES_BAND = 4
"""Rows of one colour. Rows of 1 to 32 px were tried: all show a wrong tie at every level of the pyramid."""

Kind = Literal["sample", "ties", "photograph"]


class Picture(NamedTuple):
    """One image with its trimap.

    Attributes:
        name: of the file, or what is special about it.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
        kind: cuts are made of the sample; the others are taken as they are.
        truth: true alpha, uint8 H, W, if there is one.
    """

    name: str
    image: UInt8
    trimap: UInt8
    kind: Kind = "photograph"
    truth: UInt8 | None = None


class Case(NamedTuple):
    """One image, and how the runtime cuts it.

    Attributes:
        name: says what is special about it.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
        tile: largest window side, pixels.
        tiled: whether the runtime must cut it into several windows.
        ties: whether it shows how ties are broken, and is judged for nothing else.
        truth: true alpha, uint8 H, W, if there is one.
    """

    name: str
    image: UInt8
    trimap: UInt8
    tile: int = LARGE_TILE
    tiled: bool = False
    ties: bool = False
    truth: UInt8 | None = None


def pictures(folder: Path | None = None) -> Iterator[Picture]:
    """The shipped photograph, the tie image, and every pair of a folder, read one by one.

    Args:
        folder: holds ``images/NAME.*``, ``trimaps/NAME.*`` and perhaps ``alphas/NAME.*``, for each name.

    Raises:
        InputError: a folder or file that cannot be read, or files that do not fit together.
    """
    yield Picture("lemur", *lemur(), kind="sample")
    yield equal_rows(*_TIES_SIZE)
    if folder is not None:
        for image, trimap, truth, name in read_samples(folder):
            yield Picture(name, image, trimap, truth=truth)


def cases(picture: Picture, metadata: ArtefactMetadata) -> list[Case]:
    """The cases of one picture for one artefact; a frozen shape decides which cuts fit."""
    if picture.kind == "sample":
        return sample_cases(metadata, picture.image, picture.trimap)
    if picture.kind == "ties":
        height, width = _at_most(metadata, picture.trimap.shape)
        cut = equal_rows(height, width)
        return [Case(cut.name, cut.image, cut.trimap, ties=True)]
    return [Case(picture.name, picture.image, picture.trimap, truth=picture.truth)]


def sample_cases(metadata: ArtefactMetadata, image: UInt8, trimap: UInt8) -> list[Case]:
    """Cases cut out of one photograph: multiples of 32 and not, upright and lying, tiny, whole and tiled.

    Args:
        metadata: of the artefact; cuts are no larger than a frozen shape.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
    """
    smallest_tile = 2 * metadata.context + metadata.stride
    most = _at_most(metadata, trimap.shape)
    cuts = [Case(name, *_cut(image, trimap, min(h, most[0]), min(w, most[1]))) for name, h, w in _CUTS]
    if metadata.static_shape and min(most) < smallest_tile:
        return cuts
    largest = max((smallest_tile, *(metadata.static_shape or ())[1:]))
    wide = _widened(image, largest), _widened(trimap, largest)
    return [
        *cuts,
        Case("photograph", image, trimap),
        Case("photo, tiled", *wide, smallest_tile, tiled=True),
    ]


def _widened(plane: UInt8, tile: int) -> UInt8:
    """Return a picture, H, W or H, W, 3, that is wider than a tile: itself, or repeated by reflection.

    A network with a large context needs tiles that the photograph would fit into.
    """
    width = plane.shape[1]
    missing = max(0, tile + 1 - width)
    padding = ((0, 0), (0, missing), *[(0, 0)] * (plane.ndim - 2))
    return np.pad(plane, padding, "symmetric") if missing else plane


def equal_rows(height: int, width: int) -> Picture:
    """Bands of one random colour from edge to edge, unknown but for a known band at the top and bottom.

    Away from the left and right edges the two columns of every pooling window are equal at every level: ties
    between values that are not zero, in the top row and in the bottom row. In a photograph ties are windows
    of zeros, and those never show how a tie in the bottom row is broken.
    """
    colours = np.random.default_rng(0).integers(0, 256, (-(-height // _TIES_BAND), 1, 3), np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(colours.repeat(_TIES_BAND, 0)[:height], (height, width, 3)))
    trimap = np.full((height, width), UNKNOWN, np.uint8)
    known = height // 6
    trimap[:known] = trimap[height - known :] = BACKGROUND
    return Picture("equal rows", image, trimap, kind="ties")


def _at_most(metadata: ArtefactMetadata, shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    if metadata.static_shape is None:
        return height, width
    return min(height, metadata.static_shape[1]), min(width, metadata.static_shape[2])


def _cut(image: UInt8, trimap: UInt8, height: int, width: int) -> tuple[UInt8, UInt8]:
    """The cut of this size with the most unknown pixels; no larger than the picture."""
    unknown = trimaps.unknown(trimap).astype(np.int64)
    # Sums over every window of this size, from the integral image.
    total = np.pad(unknown.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    y, x = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
    part = slice(y, y + height), slice(x, x + width)
    return image[part], trimap[part]
