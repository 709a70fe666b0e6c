"""A stream of images through one back end: reading, planning, cutting, inference, stitching, finishing.

Each step is a generator; a :class:`~dim_runtime.inference.pipeline.Pipeline` runs each in a thread. An error
of one image is stored in its job, which then passes the remaining steps unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dim.arrays import Float32
from dim_runtime.backends.base import Backend, Estimate
from dim_runtime.backends.threads import Calls
from dim_runtime.inference.estimates import EstimateStore
from dim_runtime.inference.pipeline import Channel, Pipeline, Stopped
from dim_runtime.inference.tiler import (
    Cut,
    announce,
    cut,
    kind_of,
    propagate,
    report,
    run_windows,
    stitch,
    write_known,
)
from dim_runtime.planning.geometry import Plan, Window
from dim_runtime.progress import Progress

IMAGES_IN_FLIGHT = 4
"""Images in flight where steps overlap: one each in reading, cutting, inference and finishing."""

Load = Callable[[], tuple[Any, Any]]
"""Returns image, uint8 or uint16 H, W, 3, RGB, and trimap, uint8 H, W."""
Step = Callable[["Job"], None]


@dataclass
class Job:
    """One image of a stream.

    Attributes:
        load: reads image and trimap.
        tag: any object of the caller.
        image, trimap: set from reading until the last window is cut, that of propagation included.
        store: estimates between the two phases; None where there is one.
        mapped: pixels of the trimap that had to be read as 0, 128 or 255.
        plan: its windows; None before it is planned.
        alpha: float32 H, W in [0, 1]; None before it is cut.
        error: the first error; the job is not processed further.
        seconds: time of the back end's calls for it; they add up where several run at one time.
        done: windows that are stitched.
    """

    load: Load
    tag: Any = None
    image: Any = None
    trimap: Any = None
    mapped: int = 0
    plan: Plan | None = None
    alpha: Float32 | None = None
    store: EstimateStore | None = None
    error: Exception | None = None
    seconds: float = 0.0
    done: int = 0

    @contextmanager
    def capture_errors(self) -> Iterator[None]:
        """Record an exception on the job instead of raising it."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            self.fail(error)

    def release_inputs(self) -> None:
        """Release the input arrays; the creator of the job may hold references to them."""
        self.image = self.trimap = None
        self.load = _loaded_already

    def fail(self, error: Exception) -> None:
        """Keep the first error and release all arrays."""
        self.error = self.error or error
        self.alpha = self.store = None
        self.release_inputs()

    def take_alpha(self) -> Float32:
        """Return the alpha and release the job's reference to it; raise the job's error if it has one."""
        if self.error is not None:
            raise self.error
        assert self.alpha is not None, "a job without an error has its alpha"
        alpha, self.alpha = self.alpha, None
        return alpha


class Part(NamedTuple):
    """One window of one job."""

    job: Job
    window: Window
    cut: Cut


@dataclass
class WindowBatch:
    """Windows of one shape that are run together, and the jobs whose last window is among them.

    Attributes:
        parts: the windows, without those of jobs that failed before.
        ends: the jobs.
        call: waits until the windows have been run, and raises the error; None before it is started.
        estimates: of each window; None before that, and after an error.
        seconds: time of the call.
    """

    parts: list[Part]
    ends: list[Job] = field(default_factory=list)
    call: Callable[[], None] | None = None
    estimates: Sequence[Estimate] | None = None
    seconds: float = 0.0


def one_by_one(jobs: Iterable[Job], compute: Step, finish: Step | None = None) -> Iterator[Job]:
    """Yield the jobs in order, each computed in the caller's thread before the next one is read."""
    for job in jobs:
        with job.capture_errors():
            compute(job)
            job.release_inputs()
            if finish is not None:
                finish(job)
        yield job
        # Drop our reference so that the job can be freed before the next image is read.
        del job


class Stream:
    """The steps between a job and its alpha, each in a thread.

    Args:
        backend: runs the windows.
        prepare: loads a job, surveys its trimap and plans it.
        batch: windows that are run together, at most.
        progress: called as in :data:`~dim_runtime.progress.Progress`, for each image.
    """

    def __init__(self, backend: Backend, prepare: Step, batch: int, progress: Progress | None) -> None:
        self.backend, self.prepare, self.batch, self.progress = backend, prepare, batch, progress

    def run(self, jobs: Iterable[Job], finish: Step | None = None) -> Iterator[Job]:
        """Yield the jobs in order, done or failed; a job is in flight until the next one is requested.

        Args:
            jobs: pulled by a thread when there is room for another one.
            finish: called in a separate thread for each job that has its alpha, for example to write it.
        """
        with Calls(self.backend.in_flight) as calls:
            pipeline = Pipeline(in_flight=IMAGES_IN_FLIGHT + self.batch * calls.limit)
            try:
                for job in self._steps(jobs, pipeline, calls, finish):
                    yield job
                    del job
                    pipeline.release()
            finally:
                pipeline.stop()

    def _steps(
        self, jobs: Iterable[Job], pipeline: Pipeline, calls: Calls, finish: Step | None
    ) -> Iterator[Job]:
        prepared = pipeline.ahead(self._prepared(pipeline.admit(jobs)), waited_for=False)
        # The reader waits for one call; the others run while their batches wait for it.
        cuts = pipeline.ahead(self._started(self._batches(prepared), calls), size=max(calls.limit - 1, 1))
        computed = pipeline.ahead(self._computed(cuts))
        results = pipeline.ahead(self._stitched(computed))
        return results if finish is None else pipeline.ahead(_finished(results, finish))

    def _prepared(self, jobs: Iterator[Job]) -> Iterator[Job]:
        for job in jobs:
            with job.capture_errors():
                self.prepare(job)
            yield job
            del job

    def _batches(self, jobs: Channel[Job]) -> Iterator[WindowBatch]:
        """Batch consecutive windows of equal shape, across images if needed."""
        batch = WindowBatch([])
        for job in jobs:
            for window in _windows(job):
                if batch.parts and not self._fits(batch, job, window):
                    yield batch
                    batch = WindowBatch([])
                self._cut(batch, job, window)
            batch.ends.append(job)
            if not _has_phases(job):
                job.release_inputs()
            del job
            # Emit a partial batch: the source may never yield another image.
            if len(batch.parts) in (0, self.batch) or not jobs.ready:
                yield batch
                batch = WindowBatch([])
        if batch.ends:
            yield batch

    def _fits(self, batch: WindowBatch, job: Job, window: Window) -> bool:
        first = batch.parts[0]
        alike = kind_of(first.window) == kind_of(window) and _has_phases(first.job) == _has_phases(job)
        return alike and len(batch.parts) < self.batch

    def _cut(self, batch: WindowBatch, job: Job, window: Window) -> None:
        with job.capture_errors():
            if job.plan is not None and job.error is None:
                batch.parts.append(Part(job, window, cut(job.image, job.trimap, job.plan, window)))

    def _started(self, batches: Iterator[WindowBatch], calls: Calls) -> Iterator[WindowBatch]:
        for batch in batches:
            batch.call = calls.start(partial(self._compute, batch))
            yield batch
            del batch

    def _computed(self, batches: Iterator[WindowBatch]) -> Iterator[WindowBatch]:
        for batch in batches:
            assert batch.call is not None, "a batch is started before it is waited for"
            try:
                batch.call()
            except Exception as error:  # any error ends these images, and no others
                for part in batch.parts:
                    part.job.fail(error)
            batch.call = None  # refers to the batch
            for part in batch.parts:
                part.job.seconds += batch.seconds / len(batch.parts)
            yield batch
            del batch

    def _compute(self, batch: WindowBatch) -> None:
        """Run the windows of the jobs that have no error yet."""
        batch.parts = [part for part in batch.parts if part.job.error is None]
        if not batch.parts:
            return
        started = time.perf_counter()
        plan = batch.parts[0].job.plan
        assert plan is not None, "a job whose windows were cut has its plan"
        windows, cuts = [part.window for part in batch.parts], [part.cut for part in batch.parts]
        if windows[0] is plan.windows[0]:
            announce(self.backend, plan, self.batch, at_once=self.backend.in_flight)
        try:
            batch.estimates = run_windows(self.backend, plan, windows, cuts)
        finally:
            batch.seconds = time.perf_counter() - started

    def _stitched(self, batches: Iterator[WindowBatch]) -> Iterator[Job]:
        for batch in batches:
            ends = self._stitch_all(batch)
            del batch
            while ends:
                self._propagate(ends[0])
                yield ends.pop(0)

    def _stitch_all(self, batch: WindowBatch) -> list[Job]:
        for part, estimate in zip(batch.parts, batch.estimates or (), strict=bool(batch.estimates)):
            self._stitch(part, estimate)
        return batch.ends

    def _stitch(self, part: Part, estimate: Estimate) -> None:
        job = part.job
        with job.capture_errors():
            if job.error is None and job.plan is not None and job.alpha is not None:
                if job.done == 0:
                    report(self.progress, 0, job.plan)
                stitch(estimate, part.cut.trimap, job.plan, part.window, job.alpha, job.store)
                job.done += 1
                report(self.progress, job.done, job.plan)

    def _propagate(self, job: Job) -> None:
        """Run the second phase of a job whose windows are stitched, if its plan has one."""
        if job.store is None or job.plan is None or job.alpha is None or job.error is not None:
            return
        started = time.perf_counter()
        with job.capture_errors():
            steps = propagate(self.backend, job.image, job.trimap, job.plan, job.alpha, job.store)
            for done in steps:
                job.done = done
                report(self.progress, done, job.plan)
            job.release_inputs()
        job.store = None
        job.seconds += time.perf_counter() - started


def _loaded_already() -> tuple[Any, Any]:
    raise RuntimeError("a job is loaded once")


def _windows(job: Job) -> tuple[Window, ...]:
    """Write the known pixels of a job and return its windows; none for a job that failed."""
    with job.capture_errors():
        if job.error is None and job.plan is not None:
            job.alpha = np.empty((job.plan.height, job.plan.width), np.float32)
            write_known(job.trimap, job.plan, job.alpha)
            job.store = EstimateStore(job.plan) if job.plan.propagation else None
            return job.plan.windows
    return ()


def _has_phases(job: Job) -> bool:
    """Whether alpha is propagated in separate windows, after all others."""
    return job.plan is not None and bool(job.plan.propagation)


def _finished(jobs: Iterator[Job], finish: Step) -> Iterator[Job]:
    for job in jobs:
        with job.capture_errors():
            if job.error is None:
                finish(job)
        yield job
        del job
