"""Run a plan: read a window, run the network, write its core. No array here is as large as the image.

Images, trimaps and outputs are anything that slices like a numpy array: ``ndarray``, ``memmap``, zarr.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dim.arrays import Floating, UInt8
from dim.bit_depth import eight_bits
from dim.trimap import FOREGROUND, canonical, unknown
from dim_runtime.arrays import Sliceable, Writable
from dim_runtime.backends.base import Backend, Estimate, WindowCall, inside, valid_alpha
from dim_runtime.backends.threads import Calls
from dim_runtime.inference.blending import share
from dim_runtime.inference.estimates import EstimateStore
from dim_runtime.memory import release_free_memory
from dim_runtime.planning.geometry import Plan, Rectangle, Window, read_reflected
from dim_runtime.planning.survey import pieces
from dim_runtime.progress import Progress

TRIAL_SIDE = 256
"""Side of the window that measures a back end's speed, pixels: large enough to be representative."""


class Cut(NamedTuple):
    """The network's input for one window: image uint8 H, W, 3, RGB; canonical trimap uint8 H, W."""

    image: UInt8
    trimap: UInt8


class _Started(NamedTuple):
    """Windows of one shape whose call has been started; ``result`` waits for its estimates."""

    windows: list[Window]
    cuts: list[Cut]
    result: Callable[[], Sequence[Estimate]]


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
        progress: see :data:`~dim_runtime.progress.Progress`.
        batch: windows of one shape that are run together, at most.

    Raises:
        BackendError: the back end failed, or returned an array that is no alpha of these windows.
    """
    write_known(trimap, plan, out)
    report(progress, 0, plan)
    done = 0
    announce(backend, plan, batch, at_once=plan.in_flight)
    store = EstimateStore(plan) if plan.propagation else None
    # Closed so that the threads have ended when an error leaves this function.
    with _announced_end(backend, plan), closing(_run_all(backend, image, trimap, plan, batch)) as all_started:
        for started in all_started:
            for window, part, estimate in zip(started.windows, started.cuts, started.result(), strict=True):
                stitch(estimate, part.trimap, plan, window, out, store)
                done += 1
                report(progress, done, plan)
            # Drop our reference so that the arrays can be freed before the next windows are read.
            del started, part, estimate
    if store is not None:
        for done in propagate(backend, image, trimap, plan, out, store):
            report(progress, done, plan)


@contextmanager
def _announced_end(backend: Backend, plan: Plan) -> Iterator[None]:
    """At the end, also of an error, let the back end expect calls that belong to no plan: one at a time."""
    try:
        yield
    finally:
        if plan.in_flight > 1:
            backend.expect([])


def propagate(
    backend: Backend, image: Sliceable, trimap: Sliceable, plan: Plan, out: Writable, store: EstimateStore
) -> Iterator[int]:
    """Propagate the stitched estimates in separate windows: the second phase.

    Args:
        backend, image, trimap, plan, out: as :func:`run_plan` takes them.
        store: the estimates of all network windows.

    Yields:
        The number of windows of both phases that are done.
    """
    if len(plan.windows) > 1:
        # What the network's windows have freed would count beside the largest window of this phase. After a
        # single window the same memory is used again.
        backend.before_propagation()
        release_free_memory()
    for done, window in enumerate(plan.propagation, start=len(plan.windows) + 1):
        part = cut(image, trimap, plan, window)
        levels = part.trimap[None]
        alpha = valid_alpha(backend.propagate(part.image[None], levels, store.read(window)), levels.shape)
        _write_core(inside(alpha[0], window.margins), part.trimap, plan, window, out)
        yield done


def _run_all(
    backend: Backend, image: Sliceable, trimap: Sliceable, plan: Plan, batch: int
) -> Generator[_Started, None, None]:
    """Yield the windows in order, cut and started; up to ``plan.in_flight`` calls run at one time."""
    under_way: deque[_Started] = deque()
    with Calls(plan.in_flight) as calls:
        for windows in batches(plan.windows, batch):
            cuts = [cut(image, trimap, plan, window) for window in windows]
            under_way.append(
                _Started(windows, cuts, calls.start(partial(run_windows, backend, plan, windows, cuts)))
            )
            del cuts
            # One more waits: results are taken in order, and a later call may end first.
            if len(under_way) == calls.limit + (calls.limit > 1):
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()


def batches(windows: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """Yield the windows in order, consecutive ones that are alike together, at most ``size`` of them."""
    for _, group in groupby(windows, key=kind_of):
        same = list(group)
        yield from (same[start : start + size] for start in range(0, len(same), size))


def kind_of(window: Window) -> WindowCall:
    """Return what windows that run together have in common, as a call of one window."""
    return WindowCall((1, window.height, window.width), window.margins)


def announce(backend: Backend, plan: Plan, batch: int, *, at_once: int) -> None:
    """Pass the plan's batches, and how many run at one time, to the back end, which prepares for them."""
    calls = [
        WindowCall((len(windows), windows[0].height, windows[0].width), windows[0].margins)
        for windows in batches(plan.windows, batch)
    ]
    backend.expect(calls, at_once)


def report(progress: Progress | None, done: int, plan: Plan) -> None:
    """Call the progress callback, if given."""
    if progress is not None:
        progress(done, plan.steps)


def write_known(trimap: Sliceable, plan: Plan, out: Writable) -> None:
    """Write 1 to the foreground and 0 elsewhere; the windows overwrite the unknown pixels."""
    for piece in pieces(plan.height, plan.width):
        out[piece] = canonical(np.ascontiguousarray(trimap[piece])).trimap == FOREGROUND


def cut(image: Sliceable, trimap: Sliceable, plan: Plan, window: Window) -> Cut:
    """Read the network's input for one window, padded by reflection where it leaves the image."""
    colours = eight_bits(read_reflected(image, window))
    return Cut(colours, canonical(read_reflected(trimap, window)).trimap)


def run_windows(
    backend: Backend, plan: Plan, windows: Sequence[Window], cuts: Sequence[Cut]
) -> Sequence[Estimate]:
    """Run windows that are alike together.

    Returns:
        What is kept of each window, floating H, W in [0, 1]: validated, and without trust where the
        plan has one phase.
    """
    image, trimap = _stacked(cuts)
    margins, beyond = windows[0].margins, windows[0].beyond
    dropped = margins.less(beyond)
    if backend.phases and not plan.propagation:
        whole = valid_alpha(backend.run(image, trimap), trimap.shape)
        found = Estimate(inside(whole, dropped))
    else:
        found = backend.run_core(image, trimap, margins, beyond)
    shape = inside(trimap, dropped).shape
    alphas = valid_alpha(found.alpha, shape)
    if not plan.propagation:
        return [Estimate(alpha) for alpha in alphas]
    return [Estimate(*both) for both in zip(alphas, valid_alpha(found.trust, shape), strict=True)]


def _stacked(cuts: Sequence[Cut]) -> tuple[UInt8, UInt8]:
    """Stack cuts of one shape to N, H, W, 3 and N, H, W; a single one is not copied."""
    if len(cuts) == 1:
        return cuts[0].image[None], cuts[0].trimap[None]
    return np.stack([part.image for part in cuts]), np.stack([part.trimap for part in cuts])


def stitch(
    estimate: Estimate,
    trimap: UInt8,
    plan: Plan,
    window: Window,
    out: Writable,
    store: EstimateStore | None = None,
) -> None:
    """Write what is kept of a window: its core in an exact plan, else its share of every pixel.

    Args:
        estimate: of the part that is kept, floating H, W, in [0, 1].
        trimap: canonical trimap of the window, uint8 H, W.
        plan, window: where the window is.
        out: floating array of the whole image.
        store: takes the estimate in place of ``out`` if the plan has two phases.
    """
    if store is not None:
        store.add(window.kept, estimate, None if plan.exact else share(window, plan.windows))
    elif plan.exact:
        _write_core(estimate.alpha, trimap, plan, window, out)
    else:
        _add_share(estimate.alpha, trimap, plan, window, out)


def _write_core(alpha: Floating, trimap: UInt8, plan: Plan, window: Window, out: Writable) -> None:
    rows, columns = window.core.within(plan.height, plan.width)
    levels = _part(trimap, rows, columns, window)
    # Chosen here and not left to the graph: known pixels are exact whatever the engine's arithmetic.
    known = levels == FOREGROUND
    out[rows, columns] = np.where(unknown(levels), _part(alpha, rows, columns, window.core), known)


def _add_share(alpha: Floating, trimap: UInt8, plan: Plan, window: Window, out: Writable) -> None:
    rows, columns = window.kept.within(plan.height, plan.width)
    weighted = _part(alpha * share(window, plan.windows), rows, columns, window.kept)
    added = np.where(unknown(_part(trimap, rows, columns, window)), weighted, 0)
    # The sum of rounded shares can exceed 1 slightly.
    out[rows, columns] = np.clip(out[rows, columns] + added, 0, 1)


def _part(array: npt.NDArray[Any], rows: slice, columns: slice, origin: Rectangle) -> npt.NDArray[Any]:
    """Return rows and columns of the image from an array H, W that begins at ``origin``."""
    inner_rows = slice(rows.start - origin.y, rows.stop - origin.y)
    return array[inner_rows, columns.start - origin.x : columns.stop - origin.x]


def pixels_per_second(backend: Backend) -> float:
    """Measure how many pixels of windows the network computes in a second: one run after a warm-up."""
    count, height, width = backend.metadata.static_shape or (1, TRIAL_SIDE, TRIAL_SIDE)
    image = np.full((count, height, width, 3), 128, np.uint8)
    trimap = np.full((count, height, width), 128, np.uint8)
    # An engine prepares itself for a shape on its first run.
    backend.run(image, trimap)
    started = time.perf_counter()
    backend.run(image, trimap)
    return trimap.size / max(time.perf_counter() - started, 1e-9)
