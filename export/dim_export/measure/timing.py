"""Time one window in several back ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from dim.arrays import UInt8
from dim.contract import STRIDE
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN
from dim_runtime.backends.base import Backend

DEFAULT_SIDE = 512
"""Side of a window, pixels."""


class WindowInput(NamedTuple):
    """A batch of one window: image uint8 1, H, W, 3 RGB and trimap uint8 1, H, W."""

    image: UInt8
    trimap: UInt8


def random_window(height: int, width: int) -> WindowInput:
    """Return a window of noise, because the time of a convolution does not depend on its input.

    Args:
        height: pixels, a multiple of 32.
        width: pixels, a multiple of 32.
    """
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    values = np.array([BACKGROUND, UNKNOWN, FOREGROUND], np.uint8)
    return WindowInput(image, draw.choice(values, (1, height, width)))


def own_window(backend: Backend, side: int = DEFAULT_SIDE) -> WindowInput:
    """Return a square window of ``side`` pixels, or one of the shape that the artefact is frozen to."""
    shape = backend.metadata.static_shape
    return random_window(side, side) if shape is None else random_window(*shape[1:])


def alternate(backends: Sequence[Backend], windows: Sequence[WindowInput], runs: int) -> list[list[float]]:
    """Time each back end on its window, in alternation, so that other load on the machine affects all alike.

    Args:
        backends: back ends.
        windows: one window for each back end.
        runs: number of timed rounds; one round before them is not timed.

    Returns:
        For each back end the seconds of its ``runs`` runs.
    """
    rounds = [list(map(_seconds, backends, windows)) for _ in range(runs + 1)]
    return [list(times) for times in zip(*rounds[1:], strict=True)]


def times_faster(first: Sequence[float], second: Sequence[float], *, work: float = 1.0) -> float:
    """Return how many times faster the second is: the median over the rounds of first / second.

    The ratio of the medians would be wrong when the load of the machine changes, because the two medians may
    be from different moments. The two runs of one round are from the same moment.

    Args:
        first: seconds of each round.
        second: seconds of each round, in the same order.
        work: the second's pixels over the first's.
    """
    return work * median(slow / fast for slow, fast in zip(first, second, strict=True))


def _seconds(backend: Backend, window: WindowInput) -> float:
    start = time.perf_counter()
    backend.run(*window)
    return time.perf_counter() - start


def is_side(size: int) -> bool:
    """Return whether a window may have this side: a positive multiple of 32 pixels."""
    return size >= STRIDE and size % STRIDE == 0
