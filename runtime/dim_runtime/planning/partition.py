"""Cores that cover the unknown blocks at little cost: recursive guillotine cuts on a grid of 32-pixel blocks.

Only blocks that hold an unknown pixel need the network, but each window pays for the context around its core:
so many small windows waste context and one large window wastes known blocks. An optimal guillotine partition
takes seconds; cutting greedily where the estimated cost is lowest, a few times with slightly disturbed
estimates, comes within a few percent of it in milliseconds. Then two pieces of the best partition are joined,
or their union is cut elsewhere, as long as that costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[np.bool_]
Sides = npt.NDArray[np.intp]
Costs = npt.NDArray[np.float64]

FAR = 1 << 40
"""Beyond every block index: 'no occupied block yet' in running minima."""

DISTURBANCE = 0.1
"""Relative noise on the estimates of every attempt but the first."""

MOST_ATTEMPTS = 8

WORTH_TRYING = 1.05
"""A cut is followed up even if its first estimate is this much worse: further cuts may win it back."""


LEAST_SAVED = 1e-6
"""Blocks; less is a difference of rounding."""
MOST_REARRANGED = 64
"""Pieces of a partition, at most, whose pairs are all tried together."""


class Piece(NamedTuple):
    """A rectangle of blocks: rows top to bottom, columns left to right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Limits:
    """Limits of a window, in blocks.

    Attributes:
        grid: rows and columns of the padded image.
        tile: largest height and width of a window, context included.
        context: around each core, cut off at the border of the grid.
        fixed: every window has exactly the tile's sides (a graph with a frozen shape).
        layers: what a window costs: for each group of layers the blocks that they compute around the core,
            and their share of the work; None if all compute the whole window.
    """

    grid: tuple[int, int]
    tile: tuple[int, int]
    context: int
    fixed: bool = False
    layers: tuple[tuple[float, float], ...] | None = None

    def extent(self, start: Sides, stop: Sides, axis: int, reach: float) -> Costs:
        """Estimate the total length, along one axis, of what layers compute to cover start to stop.

        Args:
            reach: blocks that the layers compute around each core.
        """
        length, context, tile = stop - start, self.context, self.tile[axis]
        before, after = context - start, stop + context - self.grid[axis]
        outside = np.maximum(0, before) + np.maximum(0, after)
        count = np.maximum(1, -(-(length - outside) // max(tile - 2 * context, 1)))
        if self.fixed:
            return np.asarray(count * tile, np.float64)
        if reach != context:
            outside = np.maximum(0, before + (reach - context)) + np.maximum(0, after + (reach - context))
        total: Costs = length + 2 * reach * count - outside
        return total

    def cost(self, pieces: Sides) -> Costs:
        """Estimate the cost of pieces (..., 4), in blocks; exact for a piece that fits one window."""
        total = np.zeros(pieces.shape[:-1])
        for reach, share in self.layers or ((self.context, 1.0),):
            rows = self.extent(pieces[..., 0], pieces[..., 1], 0, reach)
            total += share * rows * self.extent(pieces[..., 2], pieces[..., 3], 1, reach)
        return total

    def fits(self, piece: Piece) -> bool:
        """Return whether one window can hold the piece and its context."""
        return all(
            min(stop + self.context, grid) - max(start - self.context, 0) <= tile
            for start, stop, grid, tile in zip(piece[::2], piece[1::2], self.grid, self.tile, strict=True)
        )

    @property
    def not_worth_cutting(self) -> float:
        """Two windows in the middle of the image never cost less than this."""
        if self.fixed:
            return 2 * self.tile[0] * self.tile[1]
        return sum(share * (2 * reach + 1) ** 2 for reach, share in self.layers or ((self.context, 1.0),))


def partition(occupied: Blocks, limits: Limits, attempts: int = MOST_ATTEMPTS) -> list[Piece]:
    """Return disjoint pieces that cover every occupied block, each with its context within one window.

    Args:
        occupied: bool, blocks of the padded image; True where a block holds an unknown pixel.
        limits: the tile must hold the context and one more block, or the whole grid.
        attempts: partitions that are tried, at most.
    """
    if not occupied.any():
        return []
    found = (_attempt(occupied, limits, seed) for seed in range(min(attempts, _attempts(occupied, limits))))
    best = min(found, key=lambda pieces: _total(pieces, limits))
    return _rearranged(occupied, best, limits) if len(best) <= MOST_REARRANGED else best


def _attempts(occupied: Blocks, limits: Limits) -> int:
    """Return the number of attempts: eight for a photograph, fewer for very many pieces or blocks."""
    core = [max(tile - 2 * limits.context, 1) for tile in limits.tile]
    pieces = int(np.count_nonzero(occupied)) // (core[0] * core[1]) + 1
    return max(1, min(400 // pieces, 2**18 // occupied.size, MOST_ATTEMPTS))


def _total(pieces: Sequence[Piece], limits: Limits) -> float:
    return float(limits.cost(np.array(pieces)).sum())


def _attempt(occupied: Blocks, limits: Limits, seed: int) -> list[Piece]:
    """Make one greedy partition. A stack, not recursion: a gigapixel image has thousands of pieces."""
    noise = np.random.default_rng(seed) if seed else None
    open_pieces, done = [_bounds(occupied)], []
    while open_pieces:
        piece = open_pieces.pop()
        if limits.fits(piece):
            done += _refined(occupied, piece, limits, noise)
        else:
            open_pieces += _best_cut(occupied, piece, limits, noise).pieces
    return done


def _refined(
    occupied: Blocks, piece: Piece, limits: Limits, noise: np.random.Generator | None
) -> list[Piece]:
    """Return the piece, or smaller ones in its place if their windows cost less."""
    whole = float(limits.cost(np.array(piece)))
    if whole <= limits.not_worth_cutting or piece.bottom - piece.top + piece.right - piece.left < 3:
        return [piece]
    cut = _best_cut(occupied, piece, limits, noise)
    if cut.estimate > whole * WORTH_TRYING:
        return [piece]
    parts = [part for half in cut.pieces for part in _refined(occupied, half, limits, noise)]
    return parts if _total(parts, limits) < whole else [piece]


class _Cut(NamedTuple):
    pieces: tuple[Piece, Piece]
    estimate: float


class _Gain(NamedTuple):
    saved: float
    pieces: list[Piece]
    """What takes the place of two pieces."""


def _rearranged(occupied: Blocks, pieces: list[Piece], limits: Limits) -> list[Piece]:
    """Replace two pieces by their union, or by a better cut of it, until that saves nothing."""
    known: dict[tuple[Piece, Piece], _Gain] = {}
    while True:
        pairs = [pair for pair in combinations(pieces, 2) if _are_neighbours(*pair, pieces)]
        known |= {pair: _gain(occupied, *pair, limits) for pair in pairs if pair not in known}
        best = max(pairs, key=lambda pair: known[pair].saved, default=None)
        if best is None or known[best].saved <= LEAST_SAVED:
            return pieces
        pieces = [piece for piece in pieces if piece not in best] + known[best].pieces


def _are_neighbours(first: Piece, second: Piece, pieces: Sequence[Piece]) -> bool:
    """Return whether the union of two pieces overlaps no other piece."""
    union = _union(first, second)
    return not any(_overlap(union, piece) for piece in pieces if piece not in (first, second))


def _gain(occupied: Blocks, first: Piece, second: Piece, limits: Limits) -> _Gain:
    """Return the best replacement of two neighbours."""
    union = _union(first, second)
    cut = _best_cut(occupied, union, limits, None)
    ways = [way for way in ([union], list(cut.pieces)) if all(map(limits.fits, way))]
    best = min(ways, key=lambda way: _total(way, limits), default=[first, second])
    return _Gain(_total([first, second], limits) - _total(best, limits), best)


def _union(first: Piece, second: Piece) -> Piece:
    return Piece(
        min(first.top, second.top),
        max(first.bottom, second.bottom),
        min(first.left, second.left),
        max(first.right, second.right),
    )


def _overlap(first: Piece, second: Piece) -> bool:
    rows = first.top < second.bottom and second.top < first.bottom
    return rows and first.left < second.right and second.left < first.right


def _best_cut(occupied: Blocks, piece: Piece, limits: Limits, noise: np.random.Generator | None) -> _Cut:
    """Return the cut, along either axis, whose halves (shrunk to occupied blocks) look cheapest."""
    inside = occupied[piece.top : piece.bottom, piece.left : piece.right]
    across = _halves(inside)
    along = _halves(inside.T)[..., [2, 3, 0, 1]]
    halves = np.concatenate([across, along]) + np.array([piece.top, piece.top, piece.left, piece.left])
    costs = limits.cost(halves)
    if noise is not None:
        costs *= 1 + DISTURBANCE * noise.random(costs.shape)
    # Among equals the cut nearest the middle: halves of halves are found fastest.
    sizes = (halves[..., 1] - halves[..., 0]) * (halves[..., 3] - halves[..., 2])
    imbalance = np.abs(sizes[:, 0] - sizes[:, 1]) / sizes.sum(1)
    best = int((costs.sum(1) * (1 + 1e-9 * imbalance)).argmin())
    first, second = (Piece(*map(int, half)) for half in halves[best])
    return _Cut((first, second), float(costs[best].sum()))


def _halves(inside: Blocks) -> Sides:
    """Return the bounds of occupied blocks above and below every cut between two rows: (rows - 1, 2, 4).

    Every half is occupied, as the first and last row are: pieces are always shrunk to their bounds.
    """
    height, columns = inside.shape
    # Bounds of each row: its first and last occupied block. An empty row must not widen a half.
    rows, index = inside.any(axis=1), np.arange(height)
    left = np.where(rows, inside.argmax(1), FAR)
    right = np.where(rows, columns - inside[:, ::-1].argmax(1), 0)
    # The half above cut i holds rows 0 to i: running extremes from the top.
    above = (
        np.zeros_like(index),
        np.maximum.accumulate(np.where(rows, index + 1, 0)),
        *_running(left, right),
    )
    # The half below holds the rows after i: the same from the bottom.
    top = np.minimum.accumulate(np.where(rows, index, FAR)[::-1])[::-1]
    below = (top, np.full_like(index, height), *(side[::-1] for side in _running(left[::-1], right[::-1])))
    # Drop the halves of cuts outside the rows: all rows above, or all rows below.
    return np.stack([np.stack(above, 1)[:-1], np.stack(below, 1)[1:]], 1)


def _running(left: Sides, right: Sides) -> tuple[Sides, Sides]:
    return np.minimum.accumulate(left), np.maximum.accumulate(right)


def _bounds(occupied: Blocks) -> Piece:
    rows, columns = np.flatnonzero(occupied.any(1)), np.flatnonzero(occupied.any(0))
    return Piece(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
