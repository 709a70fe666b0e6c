"""The survey agrees with a plain look at the whole trimap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dim.trimap
from dim_runtime.planning.survey import COLUMNS, ROWS, pieces, survey


@pytest.mark.parametrize(
    "shape", [(1, 1), (32, 32), (33, 31), (ROWS + 1, 70), (2 * ROWS, 64), (40, COLUMNS + 33)]
)
def test_survey_is_what_the_whole_trimap_says(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(1)
    trimap = np.where(draw.random(shape) < 0.002, draw.integers(0, 256, shape), 0).astype(np.uint8)
    canonical = dim.trimap.canonical(trimap)
    unknown = np.pad(dim.trimap.unknown(canonical.trimap), [(0, -side % 32) for side in shape])
    blocks = unknown.reshape(unknown.shape[0] // 32, 32, unknown.shape[1] // 32, 32).any((1, 3))
    found = survey(trimap)
    np.testing.assert_array_equal(found.occupied, blocks)
    mirrored = np.pad(trimap, [(0, -side % 32) for side in shape], "reflect")
    np.testing.assert_array_equal(found.reflected, survey(mirrored).occupied)
    unknown_there = dim.trimap.unknown(dim.trimap.canonical(mirrored).trimap)
    squares = unknown_there.reshape(mirrored.shape[0] // 8, 8, mirrored.shape[1] // 8, 8).any((1, 3))
    np.testing.assert_array_equal(found.squares, squares)
    assert (found.unknown, found.mapped) == (unknown.sum(), canonical.mapped)


@pytest.mark.parametrize(
    ("value", "unknown", "mapped"),
    [(0, 0, 0), (10, 0, 1), (11, 1, 1), (128, 1, 0), (244, 1, 1), (245, 0, 1), (255, 0, 0)],
)
def test_values_are_read_tolerantly(value: int, unknown: int, mapped: int) -> None:
    found = survey(np.full((1, 1), value, np.uint8))
    assert (found.unknown, found.mapped) == (unknown, mapped)


@given(st.integers(1, 3 * ROWS), st.integers(1, 3 * COLUMNS))
def test_pieces_cover_every_pixel_once(height: int, width: int) -> None:
    found = list(pieces(height, width))
    assert len(set(map(str, found))) == len(found)
    rows = {(part.start, part.stop) for part, _ in found}
    columns = {(part.start, part.stop) for _, part in found}
    assert len(found) == len(rows) * len(columns)
    for spans, side in ((rows, height), (columns, width)):
        assert [pixel for span in sorted(spans) for pixel in range(*span)] == list(range(side))
