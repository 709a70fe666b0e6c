"""Run a plan: read a window, run the network, write its core. Nothing here is as large as the image.

Images, trimaps and outputs are anything that slices like a numpy array: ``ndarray``, ``memmap``, zarr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dim.arrays import Floating, UInt8
from dim.bit_depth import eight_bits
from dim.trimap import FOREGROUND, canonical, unknown
from dim_runtime.arrays import Sliceable, Writable
from dim_runtime.backends.base import Backend
from dim_runtime.inference.blending import share
from dim_runtime.planning.geometry import Plan, Rectangle, Window, reflected
from dim_runtime.planning.survey import pieces

Progress = Callable[[int, int], object]
"""Called with the windows done and the windows in all, before the first and after each."""


class Cut(NamedTuple):
    """A window as the network sees it: colours uint8 H, W, 3, RGB; hints uint8 H, W, a canonical trimap."""

    colours: UInt8
    hints: UInt8


def run_plan(
    backend: Backend,
    image: Sliceable,
    trimap: Sliceable,
    plan: Plan,
    out: Writable,
    *,
    progress: Progress | None = None,
    batch: int = 1,
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
        batch: windows of one shape that are run together, at most.
    """
    write_known(trimap, plan, out)
    tell(progress, 0, plan)
    done = 0
    announce(backend, plan, batch)
    for windows in batches(plan.windows, batch):
        cuts = [cut(image, trimap, plan, window) for window in windows]
        alphas = backend.run(*stacked(cuts))
        for window, (_, hints), alpha in zip(windows, cuts, alphas, strict=True):
            stitch(alpha, hints, plan, window, out)
            done += 1
            tell(progress, done, plan)


def batches(windows: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """The windows in order, neighbours of one shape together, at most ``size`` of them."""
    for _, group in groupby(windows, key=lambda window: (window.height, window.width)):
        alike = list(group)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def announce(backend: Backend, plan: Plan, batch: int) -> None:
    """Tell the back end which shapes a plan will give it."""
    together = batches(plan.windows, batch)
    backend.expect([(len(windows), windows[0].height, windows[0].width) for windows in together])


def tell(progress: Progress | None, done: int, plan: Plan) -> None:
    """Report the windows done, if somebody listens."""
    if progress is not None:
        progress(done, len(plan.windows))


def write_known(trimap: Sliceable, plan: Plan, out: Writable) -> None:
    """1 in the foreground, 0 elsewhere: what is unknown is written by its window later."""
    for piece in pieces(plan.height, plan.width):
        out[piece] = canonical(np.ascontiguousarray(trimap[piece])).trimap == FOREGROUND


def cut(image: Sliceable, trimap: Sliceable, plan: Plan, window: Window) -> Cut:
    """What the network sees of one window: colours uint8 H, W, 3 and canonical hints uint8 H, W."""
    colours = eight_bits(read_padded(image, window, plan))
    return Cut(colours, canonical(read_padded(trimap, window, plan)).trimap)


def stacked(cuts: Sequence[Cut]) -> tuple[UInt8, UInt8]:
    """Cuts of one shape as a batch: N, H, W, 3 and N, H, W; a single one is not copied."""
    if len(cuts) == 1:
        return cuts[0].colours[None], cuts[0].hints[None]
    return np.stack([part.colours for part in cuts]), np.stack([part.hints for part in cuts])


def stitch(alpha: Floating, hints: UInt8, plan: Plan, window: Window, out: Writable) -> None:
    """Write a window's alpha, H, W in [0, 1]: its core in an exact plan, else its share of all of it."""
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
