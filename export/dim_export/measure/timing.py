"""How long one window takes in each of several back ends."""

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


class WindowInput(NamedTuple):
    """A batch of one window: image uint8 1, H, W, 3 RGB and trimap uint8 1, H, W."""

    image: UInt8
    trimap: UInt8


def random_window(height: int, width: int) -> WindowInput:
    """Noise: how long a convolution takes does not depend on what it sees."""
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    values = np.array([BACKGROUND, UNKNOWN, FOREGROUND], np.uint8)
    return WindowInput(image, draw.choice(values, (1, height, width)))


def own_window(backend: Backend, side: int = DEFAULT_SIDE) -> WindowInput:
    """A square window, or the shape that the artefact is frozen to."""
    shape = backend.metadata.static_shape
    return random_window(side, side) if shape is None else random_window(*shape[1:])


def alternate(backends: Sequence[Backend], windows: Sequence[WindowInput], runs: int) -> list[list[float]]:
    """Seconds of each run of each back end on its window.

    They take turns, so that what else the machine does hits all alike; one round before is not counted.

    Returns:
        One list of ``runs`` times for each back end.
    """
    rounds = [list(map(_seconds, backends, windows)) for _ in range(runs + 1)]
    return [list(times) for times in zip(*rounds[1:], strict=True)]


def times_faster(first: Sequence[float], second: Sequence[float], *, work: float = 1.0) -> float:
    """Median over the rounds of the first's time over the second's: above 1, the second is faster.

    Not the ratio of the medians: where the machine's load changes during the run, these may be of different
    moments; the two runs of a round are of the same.

    Args:
        work: the second's pixels over the first's.
    """
    return work * median(slow / fast for slow, fast in zip(first, second, strict=True))


def _seconds(backend: Backend, window: WindowInput) -> float:
    start = time.perf_counter()
    backend.run(*window)
    return time.perf_counter() - start


def is_side(size: int) -> bool:
    """Whether a window may have this side."""
    return size >= STRIDE and size % STRIDE == 0
