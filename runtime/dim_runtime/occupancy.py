"""Where a trimap is unknown, found strip by strip: no temporary array as large as the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dim.contract import STRIDE
from dim.trimap import BACKGROUND, DARKEST_UNKNOWN, FOREGROUND, LIGHTEST_UNKNOWN, UNKNOWN, UInt8
from dim_runtime.geometry import round_up
from dim_runtime.partition import Blocks

STRIP = 16 * STRIDE
"""Rows looked at together."""


class Survey(NamedTuple):
    """What a plan needs to know of a trimap.

    Attributes:
        occupied: bool, blocks of 32×32 pixels of the padded image: whether one of its pixels is unknown.
        unknown: number of unknown pixels.
        mapped: number of pixels that are not 0, 128 or 255 but near enough to be read as one of them.
    """

    occupied: Blocks
    unknown: int
    mapped: int


def survey(trimap: UInt8) -> Survey:
    """Look through a trimap, uint8 H, W: at most 10 is background, at least 245 foreground, else unknown."""
    height, width = trimap.shape
    occupied = np.zeros((round_up(height) // STRIDE, round_up(width) // STRIDE), np.bool_)
    unknown = mapped = 0
    for rows in strips(height):
        strip = np.asarray(trimap[rows])
        found = (strip >= DARKEST_UNKNOWN) & (strip <= LIGHTEST_UNKNOWN)
        unknown += int(np.count_nonzero(found))
        mapped += strip.size - sum(
            int(np.count_nonzero(strip == v)) for v in (BACKGROUND, UNKNOWN, FOREGROUND)
        )
        first = rows.start // STRIDE
        blocks = _blocks(found)
        occupied[first : first + len(blocks)] = blocks
    return Survey(occupied, unknown, mapped)


def strips(height: int) -> Iterator[slice]:
    """Slices of at most :data:`STRIP` rows that cover the image once."""
    return (slice(y, min(y + STRIP, height)) for y in range(0, height, STRIP))


def _blocks(unknown: Blocks) -> Blocks:
    rows = np.logical_or.reduceat(unknown, np.arange(0, unknown.shape[0], STRIDE), axis=0)
    return np.logical_or.reduceat(rows, np.arange(0, unknown.shape[1], STRIDE), axis=1)
