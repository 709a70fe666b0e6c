"""A stream of images through one back end: reading, planning, cutting, inference, stitching, finishing.

Each of them is a generator; a :class:`~dim_runtime.inference.pipeline.Pipeline` gives each a thread of its
own. What goes wrong with one image is noted in its job, which then passes through the remaining steps
untouched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dim.arrays import Floating
from dim_runtime.backends.base import Backend
from dim_runtime.inference.pipeline import Channel, Pipeline, Stopped
from dim_runtime.inference.tiler import Cut, Progress, announce, cut, stacked, stitch, tell, write_known
from dim_runtime.planning.geometry import Plan, Window

Load = Callable[[], tuple[Any, Any]]
"""Gives image, uint8 or uint16 H, W, 3, RGB, and trimap, uint8 H, W."""
Prepare = Callable[["Job"], None]


@dataclass
class Job:
    """One image on its way.

    Attributes:
        load: reads it.
        tag: whatever the one who made the job wants to find again.
        image, trimap: there from its reading until its last window is cut.
        mapped: pixels of the trimap that had to be read as 0, 128 or 255.
        plan: its windows; None before it is planned.
        alpha: float32 H, W in [0, 1]; None before it is cut.
        error: what went wrong; the job is then of no further use.
        seconds: what the engine has spent on it.
    """

    load: Load
    tag: Any = None
    image: Any = None
    trimap: Any = None
    mapped: int = 0
    plan: Plan | None = None
    alpha: npt.NDArray[np.float32] | None = None
    error: Exception | None = None
    seconds: float = 0.0
    done: int = 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """An error inside becomes the job's own."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            self.fail(error)

    def let_go(self) -> None:
        """Drop what was read; whoever made the job may keep more."""
        self.image = self.trimap = None
        self.load = _spent

    def fail(self, error: Exception) -> None:
        """Keep the first error; the arrays are not needed any more."""
        self.error = self.error or error
        self.alpha = None
        self.let_go()


class Part(NamedTuple):
    """One window of one job."""

    job: Job
    window: Window
    cut: Cut


@dataclass
class Batch:
    """Windows of one shape that are run together, and the jobs whose last window is among them."""

    parts: list[Part]
    ends: list[Job] = field(default_factory=list)
    alphas: Floating | None = None


class Steps:
    """The steps between a job and its alpha.

    Args:
        backend: runs the windows.
        prepare: loads a job, looks through its trimap and plans it.
        size: windows that are run together, at most.
        progress: called as in :data:`~dim_runtime.inference.tiler.Progress`, for each image anew.
    """

    def __init__(self, backend: Backend, prepare: Prepare, size: int, progress: Progress | None) -> None:
        self.backend, self.prepare, self.size, self.progress = backend, prepare, size, progress

    def run(
        self, jobs: Iterable[Job], pipeline: Pipeline, finish: Callable[[Job], None] | None = None
    ) -> Iterator[Job]:
        """The jobs in order, done or failed; ``finish`` is called for those done, in a thread of its own."""
        prepared = pipeline.ahead(self._prepared(pipeline.admit(jobs)), waited_for=False)
        cuts = pipeline.ahead(self._batches(prepared))
        computed = pipeline.ahead(self._computed(cuts))
        results = pipeline.ahead(self._stitched(computed))
        return results if finish is None else pipeline.ahead(_finished(results, finish))

    def _prepared(self, jobs: Iterator[Job]) -> Iterator[Job]:
        for job in jobs:
            with job.noting():
                self.prepare(job)
            yield job
            del job

    def _batches(self, jobs: Channel[Job]) -> Iterator[Batch]:
        """Windows in order; neighbours of one shape together, be they of one image or of several."""
        batch = Batch([])
        for job in jobs:
            for window in _windows(job):
                if batch.parts and not self._fits(batch, window):
                    yield batch
                    batch = Batch([])
                self._cut(batch, job, window)
            batch.ends.append(job)
            job.let_go()
            del job
            # Waiting for the next image to fill a batch could mean waiting for ever.
            if len(batch.parts) in (0, self.size) or not jobs.ready:
                yield batch
                batch = Batch([])
        if batch.ends:
            yield batch

    def _fits(self, batch: Batch, window: Window) -> bool:
        first = batch.parts[0].window
        alike = (first.height, first.width) == (window.height, window.width)
        return alike and len(batch.parts) < self.size

    def _cut(self, batch: Batch, job: Job, window: Window) -> None:
        with job.noting():
            if job.plan is not None and job.error is None:
                batch.parts.append(Part(job, window, cut(job.image, job.trimap, job.plan, window)))

    def _computed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._compute(batch)
            yield batch
            del batch

    def _compute(self, batch: Batch) -> None:
        batch.parts = [part for part in batch.parts if part.job.error is None]
        if not batch.parts:
            return
        started = time.perf_counter()
        job, window, _ = batch.parts[0]
        if job.plan is not None and window is job.plan.windows[0]:
            announce(self.backend, job.plan, self.size)
        try:
            batch.alphas = self.backend.run(*stacked([part.cut for part in batch.parts]))
        except Exception as error:
            for part in batch.parts:
                part.job.fail(error)
        each = (time.perf_counter() - started) / len(batch.parts)
        for part in batch.parts:
            part.job.seconds += each

    def _stitched(self, batches: Iterator[Batch]) -> Iterator[Job]:
        for batch in batches:
            ends = self._stitch_all(batch)
            del batch
            while ends:
                yield ends.pop(0)

    def _stitch_all(self, batch: Batch) -> list[Job]:
        for number, part in enumerate(batch.parts):
            self._stitch(part, batch.alphas, number)
        return batch.ends

    def _stitch(self, part: Part, alphas: Floating | None, number: int) -> None:
        job = part.job
        with job.noting():
            if job.error is None and job.plan is not None and job.alpha is not None and alphas is not None:
                if job.done == 0:
                    tell(self.progress, 0, job.plan)
                stitch(alphas[number], part.cut.hints, job.plan, part.window, job.alpha)
                job.done += 1
                tell(self.progress, job.done, job.plan)


def _spent() -> tuple[Any, Any]:
    raise RuntimeError("a job is loaded once")


def _windows(job: Job) -> tuple[Window, ...]:
    """The windows of a job whose known pixels are written; none for one that failed."""
    with job.noting():
        if job.error is None and job.plan is not None:
            job.alpha = np.empty((job.plan.height, job.plan.width), np.float32)
            write_known(job.trimap, job.plan, job.alpha)
            return job.plan.windows
    return ()


def _finished(jobs: Iterator[Job], finish: Callable[[Job], None]) -> Iterator[Job]:
    for job in jobs:
        with job.noting():
            if job.error is None:
                finish(job)
        yield job
        del job
