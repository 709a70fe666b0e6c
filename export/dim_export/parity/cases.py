"""The images on which artefacts are compared, and the tiles that the runtime cuts them into.

There are three kinds: cuts of the shipped photograph in sizes that break careless code; a synthetic image
with ties in every place, which photographs do not have; and photographs of the user.
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
from dim_runtime.images.pairs import MattingSample, read_samples
from dim_runtime.images.samples import lemur
from dim_runtime.planning.planner import DEFAULT_TILE

LARGE_TILE = DEFAULT_TILE
_CUTS = (("multiple of 32", 288, 416), ("odd, upright", 333, 251), ("small", 45, 61), ("tiny", 17, 31))
"""Name, height and width, pixels, of the cases that are cut out of the photograph."""
_TIES_SIZE = (192, 416)
"""Height and width of the tie image, pixels."""
_TIES_BAND = 4
"""Height of a band of one colour, pixels. All of 1 to 32 show a wrong tie at every level of the pyramid."""

Kind = Literal["sample", "ties", "photograph"]


class Picture(NamedTuple):
    """An image with its trimap and, if it is known, its true alpha.

    Attributes:
        sample: the arrays, and their name.
        kind: cases are cut out of the sample; the other kinds are one case each.
    """

    sample: MattingSample
    kind: Kind = "photograph"


class Case(NamedTuple):
    """An image, and the tile that the runtime cuts it into.

    Attributes:
        sample: the arrays; the name states the purpose of the case.
        tile: largest side of a window, pixels.
        tiled: whether the runtime must cut the image into several windows.
        ties: whether the case shows how ties are broken, and only the gates of ties judge it.
    """

    sample: MattingSample
    tile: int = LARGE_TILE
    tiled: bool = False
    ties: bool = False


def pictures(folder: Path | None = None) -> Iterator[Picture]:
    """Yield the shipped photograph, the tie image, and every pair of a folder, read one by one.

    Args:
        folder: holds ``images/``, ``trimaps/`` and, for scores, ``alphas/``; None adds no pairs.

    Raises:
        InputError: a folder or file that cannot be read, or files that do not fit together.
    """
    image, trimap = lemur()
    yield Picture(MattingSample(image, trimap, name="lemur"), "sample")
    yield tie_image(*_TIES_SIZE)
    if folder is not None:
        yield from map(Picture, read_samples(folder))


def cases(picture: Picture, metadata: ArtefactMetadata) -> list[Case]:
    """Return the cases of a picture for an artefact; cuts are no larger than its frozen shape."""
    if picture.kind == "sample":
        return sample_cases(metadata, picture.sample.image, picture.sample.trimap)
    if picture.kind == "ties":
        height, width = _at_most(metadata, picture.sample.trimap.shape)
        return [Case(tie_image(height, width).sample, ties=True)]
    return [Case(picture.sample)]


def sample_cases(metadata: ArtefactMetadata, image: UInt8, trimap: UInt8) -> list[Case]:
    """Cut cases out of one photograph: multiples of 32 and not, upright and landscape, tiny, whole and tiled.

    Args:
        metadata: document of the artefact; cuts are no larger than a frozen shape.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
    """
    smallest_tile = 2 * metadata.context + metadata.stride
    most = _at_most(metadata, trimap.shape)
    cuts = [_cut(name, image, trimap, min(h, most[0]), min(w, most[1])) for name, h, w in _CUTS]
    if metadata.static_shape and min(most) < smallest_tile:
        return cuts
    largest = max((smallest_tile, *(metadata.static_shape or ())[1:]))
    wide = MattingSample(_widened(image, largest), _widened(trimap, largest), name="photo, tiled")
    return [
        *cuts,
        Case(MattingSample(image, trimap, name="photograph")),
        Case(wide, smallest_tile, tiled=True),
    ]


def _widened(plane: UInt8, tile: int) -> UInt8:
    """Return a plane, H, W or H, W, 3, that is wider than a tile, repeated by reflection if necessary.

    A network with a large context needs a tile that the photograph alone would fit into.
    """
    width = plane.shape[1]
    missing = max(0, tile + 1 - width)
    padding = ((0, 0), (0, missing), *[(0, 0)] * (plane.ndim - 2))
    return np.pad(plane, padding, "symmetric") if missing else plane


def tie_image(height: int, width: int) -> Picture:
    """Return bands of random colours from edge to edge, unknown except for a known band at top and bottom.

    Away from the left and right edges, the two columns of every pooling window are equal at every level: ties
    between values other than zero, in the top row and in the bottom row. In a photograph, ties are windows of
    zeros, which never show how a tie in the bottom row is broken.
    """
    colours = np.random.default_rng(0).integers(0, 256, (-(-height // _TIES_BAND), 1, 3), np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(colours.repeat(_TIES_BAND, 0)[:height], (height, width, 3)))
    trimap = np.full((height, width), UNKNOWN, np.uint8)
    known = height // 6
    trimap[:known] = trimap[height - known :] = BACKGROUND
    return Picture(MattingSample(image, trimap, name="tie image"), "ties")


def _at_most(metadata: ArtefactMetadata, shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    if metadata.static_shape is None:
        return height, width
    return min(height, metadata.static_shape[1]), min(width, metadata.static_shape[2])


def _cut(name: str, image: UInt8, trimap: UInt8, height: int, width: int) -> Case:
    """Cut out the part of this size with the most unknown pixels; it is no larger than the picture."""
    unknown = trimaps.unknown(trimap).astype(np.int64)
    # Sum every window of this size by means of the integral image.
    total = np.pad(unknown.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    y, x = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
    part = slice(y, y + height), slice(x, x + width)
    return Case(MattingSample(image[part], trimap[part], name=name))
