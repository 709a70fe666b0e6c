"""How fast a back end is here: tried on one small window."""

from __future__ import annotations

import time

import numpy as np

from dim_runtime.backends.base import Backend

TRIAL_SIDE = 256
"""Pixels; most of a large window's speed, in a fraction of its time."""


def pixels_per_second(backend: Backend) -> float:
    """Pixels of windows that the network gets through in a second, from one run after a warm-up."""
    count, height, width = backend.metadata.static_shape or (1, TRIAL_SIDE, TRIAL_SIDE)
    image = np.full((count, height, width, 3), 128, np.uint8)
    trimap = np.full((count, height, width), 128, np.uint8)
    # An engine prepares itself for a shape when it sees it first.
    backend.run(image, trimap)
    started = time.perf_counter()
    backend.run(image, trimap)
    return trimap.size / max(time.perf_counter() - started, 1e-9)
