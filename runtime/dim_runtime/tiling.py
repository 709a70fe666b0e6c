"""Run a plan: read a window, run the network, write its core. Nothing here is as large as the image.

Images, trimaps and outputs are anything that slices like a numpy array: ``ndarray``, ``memmap``, zarr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dim.cutout import eight_bits
from dim.trimap import FOREGROUND, canonical, unknown
from dim_runtime.backends.base import Backend, Floating, UInt8
from dim_runtime.blending import share
from dim_runtime.geometry import Plan, Rectangle, Window, reflected
from dim_runtime.occupancy import strips

Progress = Callable[[int, int], object]
"""Called with the windows done and the windows in all, before the first and after each."""


class Sliceable(Protocol):
    """Anything that reads like a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


class Writable(Sliceable, Protocol):
    """Anything that reads and writes like a numpy array."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


def run_plan(
    backend: Backend,
    image: Sliceable,
    trimap: Sliceable,
    plan: Plan,
    out: Writable,
    *,
    progress: Progress | None = None,
) -> None:
    """Compute the alpha of every pixel into ``out``.

    Args:
        backend: runs the windows.
        image: uint8 or uint16 H, W, 3, RGB.
        trimap: uint8 H, W, read tolerantly: at most 10 background, at least 245 foreground, the rest unknown.
        plan: made for this trimap.
        out: floating H, W; its dtype decides the precision of the result. Every pixel is written: 0 and 1
            where the trimap is known, the network's alpha in [0, 1] elsewhere.
        progress: see :data:`Progress`.
    """
    _write_known(trimap, plan, out)
    _tell(progress, 0, plan)
    for done, window in enumerate(plan.windows, start=1):
        _run_window(backend, image, trimap, plan, window, out)
        _tell(progress, done, plan)


def _tell(progress: Progress | None, done: int, plan: Plan) -> None:
    if progress is not None:
        progress(done, len(plan.windows))


def _write_known(trimap: Sliceable, plan: Plan, out: Writable) -> None:
    """1 in the foreground, 0 elsewhere: what is unknown is written by its window later."""
    for rows in strips(plan.height):
        out[rows] = canonical(np.ascontiguousarray(trimap[rows])).trimap == FOREGROUND


def _run_window(
    backend: Backend, image: Sliceable, trimap: Sliceable, plan: Plan, window: Window, out: Writable
) -> None:
    colours = eight_bits(read_padded(image, window, plan))
    hints = canonical(read_padded(trimap, window, plan)).trimap
    alpha = backend.run(colours[None], hints[None])[0]
    if plan.exact:
        _write_core(alpha, hints, plan, window, out)
    else:
        _add_share(alpha, hints, plan, window, out)


def _write_core(alpha: Floating, hints: UInt8, plan: Plan, window: Window, out: Writable) -> None:
    rows, columns = window.core.within(plan.height, plan.width)
    inside = _relative(rows, window.y), _relative(columns, window.x)
    # Chosen here and not left to the graph: known pixels are exact whatever the engine's arithmetic.
    known = hints[inside] == FOREGROUND
    out[rows, columns] = np.where(unknown(hints[inside]), alpha[inside], known)


def _add_share(alpha: Floating, hints: UInt8, plan: Plan, window: Window, out: Writable) -> None:
    rows, columns = window.within(plan.height, plan.width)
    inside = _relative(rows, window.y), _relative(columns, window.x)
    part = np.where(unknown(hints[inside]), alpha[inside] * share(window, plan.windows)[inside], 0)
    # Rounding of the shares may leave the sum a hair above 1.
    out[rows, columns] = np.clip(out[rows, columns] + part, 0, 1)


def _relative(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)


def read_padded(array: Sliceable, part: Rectangle, plan: Plan) -> npt.NDArray[Any]:
    """A rectangle of the image as if all of it had been padded by reflection at the bottom and right."""
    rows = reflected(part.y, part.bottom, plan.height)
    columns = reflected(part.x, part.right, plan.width)
    top, left = int(rows.min()), int(columns.min())
    found = np.asarray(array[top : int(rows.max()) + 1, left : int(columns.max()) + 1])
    if part.bottom > plan.height:
        found = found[rows - top]
    if part.right > plan.width:
        found = found[:, columns - left]
    return np.ascontiguousarray(found)
