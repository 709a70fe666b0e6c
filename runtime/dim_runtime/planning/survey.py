"""Find the unknown blocks of a trimap piece by piece, without a temporary array as large as the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dim.arrays import UInt8
from dim.contract import STRIDE
from dim.contract.cropping import LEAST_STEP
from dim.trimap import BACKGROUND, DARKEST_UNKNOWN, FOREGROUND, LIGHTEST_UNKNOWN, UNKNOWN
from dim_runtime.arrays import Sliceable
from dim_runtime.planning.geometry import Rectangle, read_reflected, round_up
from dim_runtime.planning.partition import Blocks

ROWS, COLUMNS = 16 * STRIDE, 128 * STRIDE
"""Rows and columns of a piece, pixels."""
SQUARES = STRIDE // LEAST_STEP
"""Squares of 8×8 pixels along the side of a block."""


class TrimapSurvey(NamedTuple):
    """The facts about a trimap that a plan needs.

    Attributes:
        height, width: of the trimap, pixels.
        squares: bool, squares of 8×8 pixels of the image that is padded by reflection: whether one of their
            pixels is unknown.
        occupied: bool, blocks of 32×32 pixels: the same for their pixels in the image.
        reflected: the same for their pixels in the padded image.
        unknown: number of unknown pixels.
        mapped: number of pixels that are not 0, 128 or 255 but near enough to be read as one of them.
        labels: all values of a trimap whose pixels are at most 10 and not all 0, sorted; empty for any other.
    """

    height: int
    width: int
    squares: Blocks
    occupied: Blocks
    reflected: Blocks
    unknown: int
    mapped: int
    labels: tuple[int, ...] = ()


def survey(trimap: UInt8 | Sliceable) -> TrimapSurvey:
    """Survey a trimap, uint8 H, W: at most 10 is background, at least 245 foreground, the rest unknown."""
    height, width = trimap.shape
    squares = np.zeros((round_up(height) // LEAST_STEP, round_up(width) // LEAST_STEP), np.bool_)
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
        top, left = rows.start // LEAST_STEP, columns.start // LEAST_STEP
        part = _squares(found)
        squares[top : top + part.shape[0], left : left + part.shape[1]] = part
    labels = tuple(sorted(levels)) if is_dark and mapped else ()
    occupied = _blocks(squares)
    _add_padding(trimap, squares)
    reflected = _blocks(squares)
    return TrimapSurvey(height, width, squares, occupied, reflected, unknown, mapped, labels)


def pieces(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of at most :data:`ROWS` by :data:`COLUMNS` pixels that cover the image once."""
    for y in range(0, height, ROWS):
        for x in range(0, width, COLUMNS):
            yield slice(y, min(y + ROWS, height)), slice(x, min(x + COLUMNS, width))


def _add_padding(trimap: UInt8 | Sliceable, squares: Blocks) -> None:
    """Set the squares of the padded image that hold padding: those of its last row and column of blocks."""
    height, width = (round_up(side) for side in trimap.shape)
    strips = []
    if trimap.shape[0] % STRIDE:
        strips += [
            Rectangle(height - STRIDE, left, STRIDE, min(COLUMNS, width - left))
            for left in range(0, width, COLUMNS)
        ]
    if trimap.shape[1] % STRIDE:
        strips += [
            Rectangle(top, width - STRIDE, min(ROWS, height - top), STRIDE) for top in range(0, height, ROWS)
        ]
    for strip in strips:
        rows = slice(strip.y // LEAST_STEP, strip.bottom // LEAST_STEP)
        columns = slice(strip.x // LEAST_STEP, strip.right // LEAST_STEP)
        squares[rows, columns] = _squares(_unknown(read_reflected(trimap, strip)))


def _unknown(levels: UInt8) -> Blocks:
    return np.asarray((levels >= DARKEST_UNKNOWN) & (levels <= LIGHTEST_UNKNOWN))


def _squares(unknown: Blocks) -> Blocks:
    """Return which squares of 8×8 pixels hold an unknown one; the last ones may be smaller."""
    height, width = unknown.shape
    padded = np.zeros((round_up(height, LEAST_STEP), round_up(width, LEAST_STEP)), np.bool_)
    padded[:height, :width] = unknown
    # A row of a square is read as one number of 64 bits: 14 times as fast as its pixels one by one.
    rows = padded.view(np.uint64).reshape(-1, LEAST_STEP, padded.shape[1] // LEAST_STEP)
    return np.asarray(np.bitwise_or.reduce(rows, axis=1) != 0)


def _blocks(squares: Blocks) -> Blocks:
    """Return which blocks of 32×32 pixels hold a square that is true."""
    rows, columns = (side // SQUARES for side in squares.shape)
    return np.asarray(squares.reshape(rows, SQUARES, columns, SQUARES).any(axis=(1, 3)))
