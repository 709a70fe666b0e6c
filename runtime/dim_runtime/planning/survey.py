"""Find the unknown blocks of a trimap piece by piece, without a temporary array as large as the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dim.arrays import UInt8
from dim.contract import STRIDE
from dim.trimap import BACKGROUND, DARKEST_UNKNOWN, FOREGROUND, LIGHTEST_UNKNOWN, UNKNOWN
from dim_runtime.arrays import Sliceable
from dim_runtime.planning.geometry import Rectangle, read_reflected, round_up
from dim_runtime.planning.partition import Blocks

ROWS, COLUMNS = 16 * STRIDE, 128 * STRIDE
"""Rows and columns of a piece, pixels."""


class TrimapSurvey(NamedTuple):
    """The facts about a trimap that a plan needs.

    Attributes:
        height, width: of the trimap, pixels.
        occupied: bool, blocks of 32×32 pixels: whether one of their pixels in the image is unknown.
        reflected: the same for all pixels of the image that is padded by reflection.
        unknown: number of unknown pixels.
        mapped: number of pixels that are not 0, 128 or 255 but near enough to be read as one of them.
        labels: all values of a trimap whose pixels are at most 10 and not all 0, sorted; empty for any other.
    """

    height: int
    width: int
    occupied: Blocks
    reflected: Blocks
    unknown: int
    mapped: int
    labels: tuple[int, ...] = ()


def survey(trimap: UInt8 | Sliceable) -> TrimapSurvey:
    """Survey a trimap, uint8 H, W: at most 10 is background, at least 245 foreground, the rest unknown."""
    height, width = trimap.shape
    occupied = np.zeros((round_up(height) // STRIDE, round_up(width) // STRIDE), np.bool_)
    unknown = mapped = 0
    is_dark, levels = True, set[int]()
    for rows, columns in pieces(height, width):
        piece = np.asarray(trimap[rows, columns])
        found = _unknown(piece)
        unknown += int(np.count_nonzero(found))
        others = piece.size - sum(
            int(np.count_nonzero(piece == v)) for v in (BACKGROUND, UNKNOWN, FOREGROUND)
        )
        mapped += others
        # The largest value matters until one piece holds more than background.
        is_dark = is_dark and int(piece.max()) < DARKEST_UNKNOWN
        if is_dark:
            levels.update(np.unique(piece).tolist() if others else [BACKGROUND])
        top, left = rows.start // STRIDE, columns.start // STRIDE
        blocks = _blocks(found)
        occupied[top : top + blocks.shape[0], left : left + blocks.shape[1]] = blocks
    labels = tuple(sorted(levels)) if is_dark and mapped else ()
    return TrimapSurvey(height, width, occupied, _reflected(trimap, occupied), unknown, mapped, labels)


def pieces(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of at most :data:`ROWS` by :data:`COLUMNS` pixels that cover the image once."""
    for y in range(0, height, ROWS):
        for x in range(0, width, COLUMNS):
            yield slice(y, min(y + ROWS, height)), slice(x, min(x + COLUMNS, width))


def _reflected(trimap: UInt8 | Sliceable, occupied: Blocks) -> Blocks:
    """Return the occupied blocks of the padded image: its last row and column of blocks hold the padding."""
    (height, width), (rows, columns) = trimap.shape, occupied.shape
    found = occupied.copy()
    if height % STRIDE:
        for left in range(0, columns, COLUMNS // STRIDE):
            right = min(left + COLUMNS // STRIDE, columns)
            strip = Rectangle((rows - 1) * STRIDE, left * STRIDE, STRIDE, (right - left) * STRIDE)
            found[-1, left:right] = _blocks(_unknown(read_reflected(trimap, strip)))[0]
    if width % STRIDE:
        for top in range(0, rows, ROWS // STRIDE):
            bottom = min(top + ROWS // STRIDE, rows)
            strip = Rectangle(top * STRIDE, (columns - 1) * STRIDE, (bottom - top) * STRIDE, STRIDE)
            found[top:bottom, -1] = _blocks(_unknown(read_reflected(trimap, strip)))[:, 0]
    return found


def _unknown(levels: UInt8) -> Blocks:
    return np.asarray((levels >= DARKEST_UNKNOWN) & (levels <= LIGHTEST_UNKNOWN))


def _blocks(unknown: Blocks) -> Blocks:
    rows = np.logical_or.reduceat(unknown, np.arange(0, unknown.shape[0], STRIDE), axis=0)
    return np.logical_or.reduceat(rows, np.arange(0, unknown.shape[1], STRIDE), axis=1)
