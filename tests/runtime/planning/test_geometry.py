"""Padding by indices, and rectangles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dim_runtime.planning.geometry import Rectangle, reflected, round_up


@given(side=st.integers(1, 70), padding=st.integers(0, 100), start=st.integers(0, 60))
def test_reflected_is_numpys_reflection(side: int, padding: int, start: int) -> None:
    expected = np.pad(np.arange(side), (0, padding), mode="reflect")[start:]
    np.testing.assert_array_equal(reflected(start, max(side + padding, start), side), expected)


@pytest.mark.parametrize(("side", "expected"), [(1, 32), (32, 32), (33, 64), (6000, 6016)])
def test_round_up(side: int, expected: int) -> None:
    assert round_up(side) == expected


def test_within_cuts_at_the_image() -> None:
    rows, columns = Rectangle(32, 0, 64, 32).within(50, 17)
    assert (rows, columns) == (slice(32, 50), slice(0, 17))


def test_overlaps() -> None:
    first = Rectangle(0, 0, 32, 32)
    assert first.overlaps(Rectangle(31, 31, 32, 32))
    assert not first.overlaps(Rectangle(32, 0, 32, 32))
    assert not first.overlaps(Rectangle(0, 32, 32, 32))
