"""Shares of overlapping windows add up to one, and fade without steps."""

from __future__ import annotations

import numpy as np
import pytest

from dim_runtime.inference.blending import share
from dim_runtime.planning.geometry import Rectangle, Window


def window(y: int, x: int, height: int, width: int, context: int, side: int) -> Window:
    """Return a core with context on all sides, inside an image of side × side."""
    top, left = max(y - context, 0), max(x - context, 0)
    bottom, right = min(y + height + context, side), min(x + width + context, side)
    outer = Rectangle(top, left, bottom - top, right - left)
    core = Rectangle(y, x, height, width)
    return Window(top, left, bottom - top, right - left, core, outer, outer)


@pytest.mark.parametrize("context", [0, 32, 64])
def test_shares_add_up_to_one_in_the_cores(context: int) -> None:
    corners = [(0, 0, 96, 96), (0, 96, 96, 96), (96, 0, 96, 64), (96, 64, 96, 128)]
    windows = [window(*corner, context=context, side=192) for corner in corners]
    total = np.zeros((192, 192))
    for one in windows:
        total[one.y : one.bottom, one.x : one.right] += share(one, windows)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_lone_window_has_everything() -> None:
    lone = window(32, 32, 32, 32, context=32, side=512)
    np.testing.assert_array_equal(share(lone, [lone]), 1)


def test_the_share_falls_steadily_across_the_overlap() -> None:
    left, right = window(0, 0, 64, 64, 32, 128), window(0, 64, 64, 64, 32, 128)
    row = share(left, [left, right])[0]
    assert row[0] == 1
    assert row[63] == pytest.approx(0.5, abs=0.02)
    steps = np.diff(row)
    assert (steps <= 0).all()
    assert steps.min() > -0.05
    assert row[-1] < 0.05
