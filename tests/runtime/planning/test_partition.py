"""Cores cover what is unknown, once, in windows that the limits allow, at little cost."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dim_runtime.planning.partition import Limits, Piece, _rearranged, partition

Blocks = npt.NDArray[np.bool_]

GRIDS = arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.booleans())
SPARSE = arrays(np.bool_, st.tuples(st.integers(1, 60), st.integers(1, 60)), fill=st.just(False))


def limits_for(occupied: Blocks, context: int, core: int, fixed: bool = False) -> Limits:
    tile = 2 * context + core
    rows, columns = occupied.shape
    grid = (max(rows, tile), max(columns, tile)) if fixed else (rows, columns)
    return Limits(grid, (tile, tile), context, fixed)


def check(occupied: Blocks, limits: Limits, pieces: list[Piece]) -> None:
    covered = np.zeros(occupied.shape, np.int64)
    for piece in pieces:
        assert limits.fits(piece)
        covered[piece.top : piece.bottom, piece.left : piece.right] += 1
    assert covered.max(initial=0) <= 1
    assert (covered[occupied] == 1).all()


@settings(deadline=None, max_examples=60)
@given(occupied=GRIDS | SPARSE, context=st.integers(0, 7), core=st.integers(1, 20), fixed=st.booleans())
def test_pieces_cover_every_occupied_block_once(
    occupied: Blocks, context: int, core: int, fixed: bool
) -> None:
    limits = limits_for(occupied, context, core, fixed)
    check(occupied, limits, partition(occupied, limits))


def test_nothing_occupied_needs_no_window() -> None:
    occupied = np.zeros((5, 7), np.bool_)
    assert partition(occupied, limits_for(occupied, 6, 1)) == []


def test_one_window_where_everything_fits() -> None:
    occupied = np.zeros((10, 12), np.bool_)
    occupied[2, 3] = occupied[9, 11] = True
    assert partition(occupied, Limits((10, 12), (12, 12), 6)) == [Piece(2, 10, 3, 12)]


def test_far_blobs_get_their_own_windows() -> None:
    occupied = np.zeros((100, 100), np.bool_)
    occupied[:2, :2] = occupied[-2:, -2:] = True
    pieces = partition(occupied, Limits((100, 100), (100, 100), 2))
    assert sorted(pieces) == [Piece(0, 2, 0, 2), Piece(98, 100, 98, 100)]


def test_neighbours_that_cost_less_together_are_joined() -> None:
    occupied = np.zeros((20, 20), np.bool_)
    occupied[4:8, 4:12] = occupied[15, 15] = True
    limits = Limits((20, 20), (16, 16), 2)
    apart = [Piece(4, 8, 4, 8), Piece(4, 8, 8, 12), Piece(15, 16, 15, 16)]
    assert sorted(_rearranged(occupied, apart, limits)) == [Piece(4, 8, 4, 12), Piece(15, 16, 15, 16)]


@settings(deadline=None, max_examples=30)
@given(occupied=GRIDS, context=st.integers(0, 4))
def test_a_rearranged_partition_covers_all_and_costs_no_more(occupied: Blocks, context: int) -> None:
    """From the worst one: a piece for each block."""
    limits = limits_for(occupied, context, 6)
    blocks = [Piece(y, y + 1, x, x + 1) for y, x in np.argwhere(occupied)[:40].tolist()]
    occupied = np.zeros_like(occupied)
    for piece in blocks:
        occupied[piece.top, piece.left] = True
    found = _rearranged(occupied, blocks, limits)
    check(occupied, limits, found)
    if blocks:
        assert total(found, limits) <= total(blocks, limits) + 1e-6


def total(pieces: list[Piece], limits: Limits) -> float:
    return float(limits.cost(np.array(pieces)).sum())


def least_cost(occupied: Blocks, limits: Limits) -> float:
    """Return the cost of the best guillotine partition, by trying all of them."""

    @cache
    def least(top: int, bottom: int, left: int, right: int) -> float:
        inside = occupied[top:bottom, left:right]
        if not inside.any():
            return 0
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        bottom, right = top + int(rows[-1]) + 1, left + int(columns[-1]) + 1
        top, left = top + int(rows[0]), left + int(columns[0])
        piece = Piece(top, bottom, left, right)
        ways = [total([piece], limits)] if limits.fits(piece) else []
        ways += [
            least(top, row, left, right) + least(row, bottom, left, right) for row in range(top + 1, bottom)
        ]
        ways += [
            least(top, bottom, left, column) + least(top, bottom, column, right)
            for column in range(left + 1, right)
        ]
        return min(ways)

    return least(0, occupied.shape[0], 0, occupied.shape[1])


TWO_CORNERS = np.zeros((5, 5), np.bool_)
TWO_CORNERS[0, 0] = TWO_CORNERS[4, 2] = True
"""Two windows that the border cuts off cost less than one."""


@settings(deadline=None, max_examples=40)
@example(occupied=TWO_CORNERS, context=2, core=1, layers=None)
@given(
    occupied=arrays(np.bool_, (5, 5), elements=st.booleans()),
    context=st.integers(0, 2),
    core=st.integers(1, 5),
    layers=st.sampled_from([None, ((1.0, 0.5), (0.3, 0.5))]),
)
def test_a_small_image_gets_the_best_guillotine_partition(
    occupied: Blocks, context: int, core: int, layers: tuple[tuple[float, float], ...] | None
) -> None:
    limits = replace(limits_for(occupied, context, core), layers=layers)
    pieces = partition(occupied, limits)
    check(occupied, limits, pieces)
    if pieces:
        assert total(pieces, limits) <= least_cost(occupied, limits) + 1e-6


def ring(side: int) -> Blocks:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    distance = np.hypot(y, x) / side
    return (distance > 0.36) & (distance < 0.40)


def test_a_ring_costs_less_than_the_grid_and_than_the_whole() -> None:
    occupied, tile, context = ring(200), 48, 6
    limits = Limits(occupied.shape, (tile, tile), context)
    cost = sum(int(limits.cost(np.array(piece))) for piece in partition(occupied, limits))
    cores = -(-200 // (tile - 2 * context))
    grid = (200 + 2 * context * (cores - 1)) ** 2
    assert cost < 0.75 * occupied.size < grid


@pytest.mark.parametrize("side", [50, 183, 300])
@pytest.mark.parametrize("layers", [None, ((6.0, 0.5), (1.2, 0.5))])
def test_a_region_that_is_unknown_everywhere_gets_as_few_windows_as_hold_it(
    side: int, layers: tuple[tuple[float, float], ...] | None
) -> None:
    occupied, core, context = np.ones((side, side), np.bool_), 36, 6
    limits = replace(limits_for(occupied, context, core), layers=layers)
    pieces = partition(occupied, limits)
    check(occupied, limits, pieces)
    # The first and the last window of a row need no context beyond the border.
    assert len(pieces) == (-(-(side - 2 * context) // core)) ** 2


def test_a_partition_is_the_same_every_time() -> None:
    occupied = ring(90)
    limits = Limits(occupied.shape, (48, 48), 6)
    assert partition(occupied, limits) == partition(occupied, limits)


def test_thousands_of_pieces_are_planned_in_seconds() -> None:
    occupied = np.ones((50, 50), np.bool_)
    limits = Limits(occupied.shape, (13, 13), 6)
    started = time.process_time()
    pieces = partition(occupied, limits)
    assert time.process_time() - started < 10
    check(occupied, limits, pieces)


def test_a_gigapixel_is_planned_in_seconds() -> None:
    occupied = ring(1000)
    limits = Limits(occupied.shape, (32, 32), 6)
    started = time.process_time()
    check(occupied, limits, partition(occupied, limits))
    assert time.process_time() - started < 20
