"""Weights for windows whose context is too small for an exact result: a linear ramp over the overlap.

A window counts fully in its core and fades to nothing towards the end of what is kept of it. Shares are
computed from the geometry alone, so no sum of weights as large as the image has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dim.arrays import Float32
from dim_runtime.planning.geometry import Rectangle, Window


def share(window: Window, windows: Sequence[Window]) -> Float32:
    """Return the share of each kept pixel of ``window`` that comes from it: float32 height, width in [0, 1].

    The shares of all windows of a plan add up to 1 at every pixel that one of them covers.
    """
    own = _weight(window, window.kept)
    total = own.copy()
    for other in windows:
        if other is not window and other.kept.overlaps(window.kept):
            total += _weight(other, window.kept)
    return np.divide(own, total, out=own, where=total > 0)


def _weight(window: Window, seen: Rectangle) -> Float32:
    """Return the window's weight over the rectangle ``seen``; 0 outside of what is kept."""
    kept, core = window.kept, window.core
    rows = _ramp(seen.y, seen.bottom, (kept.y, kept.bottom), (core.y, core.bottom))
    columns = _ramp(seen.x, seen.right, (kept.x, kept.right), (core.x, core.right))
    return np.outer(rows, columns)


def _ramp(start: int, stop: int, outer: tuple[int, int], core: tuple[int, int]) -> Float32:
    """Return the weight along one axis: 1 in the core, falling to 0 one pixel beyond the kept part."""
    position = np.arange(start, stop, dtype=np.float32)
    rising = (position - (outer[0] - 1)) / (core[0] - (outer[0] - 1))
    falling = (outer[1] - position) / (outer[1] - (core[1] - 1))
    return np.clip(np.minimum(rising, falling), 0, 1)
