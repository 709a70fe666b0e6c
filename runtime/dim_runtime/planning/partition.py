"""Cores that cover the unknown blocks at little cost: guillotine cuts on a grid of 32-pixel blocks.

Only blocks that hold an unknown pixel need the network, but each window pays for the context around its core:
so many small windows waste context and one large window wastes known blocks. The best partition whose cuts
lie on a coarse grid is found by dynamic programming, in tens of milliseconds. Then two neighbours are joined,
or their union is cut at any block, as long as that costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[np.bool_]
Sides = npt.NDArray[np.intp]
Costs = npt.NDArray[np.float64]

FAR = 1 << 40
"""Beyond every block index: 'no occupied block yet' in running minima."""

CELLS = 20
"""Most rows and columns of cells between which cuts are tried together."""
CUTS = 4
"""Cuts of the grid, at least, between the borders of the largest core. Larger pieces are halved first, where
the estimates of both halves are least: a coarser grid is worse than that."""
CELLS_IN_CONTEXT = 2
"""Cells along the context, at most: finer ones save little and take long on small images."""
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

    def extents(self, pieces: Sides, reach: Costs) -> Costs:
        """Estimate the height and width of all that layers compute to cover pieces.

        Args:
            pieces: (…, 4).
            reach: blocks that each group of layers computes around each core; (groups).

        Returns:
            Sides in blocks, float64 (groups, …, 2).
        """
        starts, stops = pieces[..., ::2], pieces[..., 1::2]
        grid, tile, context = np.array(self.grid), np.array(self.tile), self.context
        length, before, after = stops - starts, context - starts, stops + context - grid
        # 1. Windows along each side; the border of the image needs no context.
        outside = np.maximum(0, before) + np.maximum(0, after)
        count = np.maximum(1, -(-(length - outside) // np.maximum(tile - 2 * context, 1)))
        reach = reach.reshape(-1, *[1] * pieces.ndim)
        if self.fixed:
            return np.broadcast_to((count * tile).astype(np.float64), (len(reach), *count.shape))
        # 2. Each adds the reach on both sides, but for what is outside the image.
        more = reach - context
        outside = np.maximum(0, before + more) + np.maximum(0, after + more)
        total: Costs = length + 2 * reach * count - outside
        return total

    def cost(self, pieces: Sides) -> Costs:
        """Estimate the cost of pieces (…, 4), in blocks; exact for a piece that fits one window."""
        reach, share = np.array(self.layers or ((self.context, 1.0),), np.float64).T
        sides = self.extents(pieces, reach)
        weighted = share.reshape(-1, *[1] * (pieces.ndim - 1)) * sides[..., 0] * sides[..., 1]
        return np.asarray(weighted.sum(axis=0))

    def fitting(self, pieces: Sides) -> Blocks:
        """Return which pieces (…, 4) one window can hold with their context."""
        starts, stops = pieces[..., ::2], pieces[..., 1::2]
        sides = np.minimum(stops + self.context, self.grid) - np.maximum(starts - self.context, 0)
        return np.asarray((sides <= self.tile).all(axis=-1))

    def fits(self, piece: Piece) -> bool:
        """Return whether one window can hold the piece and its context."""
        return all(
            min(stop + self.context, grid) - max(start - self.context, 0) <= tile
            for start, stop, grid, tile in zip(piece[::2], piece[1::2], self.grid, self.tile, strict=True)
        )

    @property
    def cores(self) -> tuple[int, int]:
        """Height and width of the core of the largest window in the middle of the image."""
        return max(self.tile[0] - 2 * self.context, 1), max(self.tile[1] - 2 * self.context, 1)

    @property
    def smallest_cell(self) -> int:
        """Side of the smallest cells."""
        return max(1, min(self.context // CELLS_IN_CONTEXT, min(self.cores) // CUTS))

    def fine_enough(self, piece: Piece) -> bool:
        """Return whether cuts along a grid of CELLS × CELLS leave a choice of several in each window."""
        sides = piece.bottom - piece.top, piece.right - piece.left
        steps = [-(-side // CELLS) for side in sides]
        return all(step == 1 or step * CUTS <= core for step, core in zip(steps, self.cores, strict=True))

    @property
    def not_worth_cutting(self) -> float:
        """Two windows never cost less than this; it is reached by two that hold a block in a corner."""
        if self.fixed:
            return 2 * self.tile[0] * self.tile[1]
        rows, columns = self.grid
        return 2 * sum(
            share * min(rows, 1 + reach) * min(columns, 1 + reach)
            for reach, share in self.layers or ((self.context, 1.0),)
        )

    def full_windows(self, start: int, stop: int, axis: int) -> Sides:
        """Return where cuts along one axis leave windows of the largest size, counted from the start."""
        core = self.cores[axis]
        # The context of the first window ends at the border of the image.
        first = start + core + max(0, self.context - start)
        return np.arange(first, stop, core)


def partition(occupied: Blocks, limits: Limits) -> list[Piece]:
    """Return disjoint pieces that cover every occupied block, each with its context within one window.

    Args:
        occupied: bool, blocks of the padded image; True where a block holds an unknown pixel.
        limits: the tile must hold the context and one more block, or the whole grid.
    """
    if not occupied.any():
        return []
    open_pieces, done = [_bounds(occupied)], []
    # A stack, not recursion: a gigapixel image has thousands of pieces.
    while open_pieces:
        piece = open_pieces.pop()
        if limits.fits(piece) and float(limits.cost(np.array(piece))) <= limits.not_worth_cutting:
            done.append(piece)
        elif limits.fine_enough(piece):
            done += _Cuts(occupied, piece, limits).best()
        else:
            open_pieces += _best_cut(occupied, piece, limits)
    return _rearranged(occupied, done, limits) if len(done) <= MOST_REARRANGED else done


class _Cuts:
    """The best guillotine partition of a piece, with cuts along a grid of at most CELLS × CELLS cells.

    Dynamic programming over all rectangles of cells: a rectangle costs what its window costs, or what two
    rectangles cost that a cut through it leaves. Arrays have the shape (first row, first column, end column).

    Args:
        occupied: blocks of the padded image.
        piece: the part that is cut.
        limits: of the windows; each cell fits in one.
    """

    def __init__(self, occupied: Blocks, piece: Piece, limits: Limits) -> None:
        inside = occupied[piece.top : piece.bottom, piece.left : piece.right]
        full = (
            limits.full_windows(piece.top, piece.bottom, 0) - piece.top,
            limits.full_windows(piece.left, piece.right, 1) - piece.left,
        )
        smallest = limits.smallest_cell
        bounds = _cell_bounds(
            inside, _cell_starts(inside, full[0], smallest), _cell_starts(inside.T, full[1], smallest)
        )
        bounds += np.array([piece.top, piece.top, piece.left, piece.left])
        self._bounds: list[Sides] = [bounds]
        """Bounds of the occupied blocks of rectangles of 1, 2, … rows of cells."""
        self._windows: list[Costs] = []
        """Cost of one window for each rectangle, by its rows of cells; infinite where it does not fit."""
        self._least: list[Costs] = []
        """Least cost of each rectangle with cuts, likewise."""
        for rows in range(1, bounds.shape[0] + 1):
            if rows > 1:
                self._bounds.append(_joined(self._bounds[-1][:-1], bounds[rows - 1 :]))
            self._windows.append(_window_costs(self._bounds[-1], limits))
            self._least.append(self._with_cuts(rows))

    def _with_cuts(self, rows: int) -> Costs:
        """Return the least cost of all rectangles with so many rows of cells."""
        least = self._windows[rows - 1].copy()
        count = len(least)
        # Cuts between two rows of cells.
        for above in range(1, rows):
            lower = self._least[rows - above - 1][above : above + count]
            np.minimum(least, self._least[above - 1][:count] + lower, out=least)
        # Cuts between two columns, from the right: the part left of the first cut has none.
        for column in range(least.shape[1] - 2, -1, -1):
            right = least[:, column, column + 1 : -1, None] + least[:, column + 1 : -1, :]
            if right.shape[1]:
                np.minimum(least[:, column], right.min(axis=1), out=least[:, column])
        return least

    def best(self) -> list[Piece]:
        """Return the pieces of the best partition."""
        rows, columns = len(self._least), self._least[0].shape[1] - 1
        open_rectangles, done = [(0, rows, 0, columns)], []
        while open_rectangles:
            rectangle = open_rectangles.pop()
            halves = self._halves(*rectangle)
            top, bottom, left, right = rectangle
            if halves:
                open_rectangles += halves
            elif self._windows[bottom - top - 1][top, left, right] > 0:
                done.append(Piece(*map(int, self._bounds[bottom - top - 1][top, left, right])))
        return done

    def _halves(self, top: int, bottom: int, left: int, right: int) -> list[tuple[int, int, int, int]]:
        """Return the two rectangles of the best cut, none if one window costs no more."""
        level, least, whole = self._least, self._least[bottom - top - 1], self._windows[bottom - top - 1]
        across = [
            level[row - top - 1][top, left, right] + level[bottom - row - 1][row, left, right]
            for row in range(top + 1, bottom)
        ]
        along = least[top, left, left + 1 : right] + least[top, left + 1 : right, right]
        costs = np.array([*across, *along])
        if not len(costs) or whole[top, left, right] <= costs.min() + LEAST_SAVED:
            return []
        best = int(costs.argmin())
        if best < len(across):
            row = top + 1 + best
            return [(top, row, left, right), (row, bottom, left, right)]
        column = left + 1 + best - len(across)
        return [(top, bottom, left, column), (top, bottom, column, right)]


def _cell_bounds(inside: Blocks, rows: Sides, columns: Sides) -> Sides:
    """Return the bounds of the occupied blocks of every range of cells of a row of cells.

    Args:
        inside: blocks of a piece.
        rows: first row of blocks of each row of cells.
        columns: first column of blocks of each column of cells.

    Returns:
        Rows of cells, first column, end column, 4 (a Piece); its top is FAR or more where none is occupied.
    """
    found = np.empty((len(rows), len(columns) + 1, len(columns) + 1, 4), np.intp)
    found[:] = FAR, 0, FAR, 0
    for axis, places in enumerate(np.indices(inside.shape)):
        for side, values, extreme in (
            (2 * axis, np.where(inside, places, FAR), np.minimum),
            (2 * axis + 1, np.where(inside, places + 1, 0), np.maximum),
        ):
            single = extreme.reduceat(extreme.reduceat(values, rows, axis=0), columns, axis=1)
            for first in range(single.shape[1]):
                found[:, first, first + 1 :, side] = extreme.accumulate(single[:, first:], axis=1)
    return found


def _cell_starts(inside: Blocks, full: Sides, smallest: int) -> Sides:
    """Return the first row of each row of cells.

    Some are the cuts between full windows, which large unknown regions need. The others lie evenly or, where
    the smallest cells would be more than CELLS, half of them evenly and half where the most blocks change.

    Args:
        inside: blocks of a piece.
        full: rows where cuts leave windows of the largest size.
        smallest: rows of a cell, at least, except beside a cut between full windows.
    """
    count = len(inside)
    if count <= CELLS * smallest:
        return np.union1d(np.arange(0, count, smallest), full)
    step = -(-2 * count // (CELLS - len(full)))
    starts = np.union1d(np.arange(0, count, step), full)
    changes = np.count_nonzero(inside[1:] != inside[:-1], axis=1)
    changes[starts[1:] - 1] = -1
    busiest = np.argsort(-changes, kind="stable")[: CELLS - len(starts)] + 1
    return np.sort(np.concatenate([starts, busiest]))


def _joined(first: Sides, second: Sides) -> Sides:
    """Return the bounds of both."""
    joined = np.minimum(first, second)
    np.maximum(first[..., 1::2], second[..., 1::2], out=joined[..., 1::2])
    return joined


def _window_costs(bounds: Sides, limits: Limits) -> Costs:
    """Return what one window costs for each rectangle (rows of cells, first column, end column); infinite
    where it does not fit.
    """
    first, end = np.triu_indices(bounds.shape[1], 1)
    pieces = bounds[:, first, end]
    occupied = pieces[..., 0] < FAR
    pieces[~occupied] = 0
    costs = np.full(bounds.shape[:3], np.inf)
    one = np.where(limits.fitting(pieces), limits.cost(pieces), np.inf)
    costs[:, first, end] = np.where(occupied, one, 0)
    return costs


class _Gain(NamedTuple):
    saved: float
    pieces: list[Piece]
    """What takes the place of two pieces."""


def _rearranged(occupied: Blocks, pieces: list[Piece], limits: Limits) -> list[Piece]:
    """Replace two pieces by their union, or by a better cut of it, until that saves nothing."""
    known: dict[tuple[Piece, Piece], _Gain] = {}
    while True:
        pairs = _neighbours(pieces)
        new = [pair for pair in pairs if pair not in known]
        known |= zip(new, _gains(occupied, new, limits), strict=True)
        best = max(pairs, key=lambda pair: known[pair].saved, default=None)
        if best is None or known[best].saved <= LEAST_SAVED:
            return pieces
        pieces = [piece for piece in pieces if piece not in best] + known[best].pieces


def _neighbours(pieces: list[Piece]) -> list[tuple[Piece, Piece]]:
    """Return the pairs of pieces whose union overlaps no other piece."""
    sides = np.array(pieces, np.intp).reshape(-1, 4)
    first, second = np.triu_indices(len(pieces), 1)
    top, bottom, left, right = _joined(sides[first], sides[second]).T[..., None]
    overlaps = (top < sides[:, 1]) & (sides[:, 0] < bottom) & (left < sides[:, 3]) & (sides[:, 2] < right)
    # A union overlaps its own two pieces.
    alone = overlaps.sum(axis=1) == 2
    return [(pieces[one], pieces[other]) for one, other in zip(first[alone], second[alone], strict=True)]


def _gains(occupied: Blocks, pairs: list[tuple[Piece, Piece]], limits: Limits) -> list[_Gain]:
    """Return the best replacement of each pair of neighbours."""
    replacements = []
    for pair in pairs:
        union = _union(*pair)
        ways = [[union], _best_cut(occupied, union, limits)]
        replacements.append([list(pair), *(way for way in ways if all(map(limits.fits, way)))])
    # One call for the costs of all pieces: a call of NumPy takes longer than its work on one piece.
    all_pieces = [piece for ways in replacements for way in ways for piece in way]
    costs = iter(limits.cost(np.array(all_pieces, np.intp).reshape(-1, 4)).tolist())
    gains = []
    for ways in replacements:
        before, *after = [sum(islice(costs, len(way))) for way in ways]
        least = min(after, default=before)
        gains.append(_Gain(before - least, ways[1 + after.index(least)] if after else ways[0]))
    return gains


def _union(first: Piece, second: Piece) -> Piece:
    return Piece(
        min(first.top, second.top),
        max(first.bottom, second.bottom),
        min(first.left, second.left),
        max(first.right, second.right),
    )


def _best_cut(occupied: Blocks, piece: Piece, limits: Limits) -> list[Piece]:
    """Return the two halves, shrunk to occupied blocks, of the cut along either axis that costs least."""
    inside = occupied[piece.top : piece.bottom, piece.left : piece.right]
    across = _halves(inside)
    along = _halves(inside.T)[..., [2, 3, 0, 1]]
    halves = np.concatenate([across, along]) + np.array([piece.top, piece.top, piece.left, piece.left])
    sizes = (halves[..., 1] - halves[..., 0]) * (halves[..., 3] - halves[..., 2])
    imbalance = abs(sizes[:, 0] - sizes[:, 1]) / sizes.sum(1)
    # Of equal cuts the one nearest the middle: slices from one end would take as many steps as windows.
    best = int((limits.cost(halves).sum(1) * (1 + LEAST_SAVED * imbalance)).argmin())
    return [Piece(*map(int, half)) for half in halves[best]]


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
