"""The front door: image and trimap in, alpha out."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dim.arrays import Float32, Image, UInt8
from dim.contract import ArtefactMetadata
from dim.errors import InputError
from dim_runtime.arrays import Sliceable, Writable
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import BackendName, Precision, open_backend
from dim_runtime.errors import TrimapWarning
from dim_runtime.inference.pipeline import Pipeline
from dim_runtime.inference.speed import pixels_per_second
from dim_runtime.inference.stream import Job, Steps
from dim_runtime.inference.tiler import Progress, run_plan
from dim_runtime.inputs import require_out, require_pair, require_trimap
from dim_runtime.mapped import by_windows, held_bytes
from dim_runtime.memory import resident_bytes
from dim_runtime.planning.geometry import Plan
from dim_runtime.planning.planner import Context, Options, Planner
from dim_runtime.planning.survey import Survey, survey
from dim_runtime.progress import reporting

ALPHA_BYTES = 4
STEPS = 4
"""Images in flight where steps overlap: one that is read, one cut, one computed, one finished."""


def default_model() -> Path:
    """The embedded artefact."""
    return Path(__file__).parent / "models" / "dim-compact.onnx"


class Matting:
    """Deep Image Matting without PyTorch, for images of any size.

    Args:
        model: an ``.onnx`` artefact of ``dim-export``; None takes the embedded compact model.
        backend: None takes ONNX Runtime for ``.onnx``.
        device: "cpu", "cuda" or "cuda:N"; one that is not there is an error.
        precision: None for the artefact's own.
        tile: largest window side, context included; a multiple of 32 pixels.
        context: "exact" gives the alpha of the whole image, whatever the tile; a smaller number of pixels (a
            multiple of 32) is faster and close to it, windows are then blended.
        threads: threads of one operator; None leaves the choice to the engine.
        memory_limit: peak resident memory of the process during a call, bytes; the caller's arrays, the model
            and the output count. The tile is lowered to keep it.
        progress: True shows a bar on standard error; a function is called with windows done and in all.

    Raises:
        dim_runtime.errors.ArtefactError: a model that is missing, damaged, or not of this toolkit.
        dim_runtime.errors.BackendError, DeviceError: an engine or device that is not there.
        dim.errors.InputError: an impossible option.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: BackendName | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        tile: int = 1536,
        context: Context = "exact",
        threads: int | None = None,
        memory_limit: int | None = None,
        progress: bool | Progress = False,
    ) -> None:
        # Before the model is loaded: a wrong option is told at once.
        options = Options(tile, context, memory_limit)
        path = default_model() if model is None else Path(model)
        opened = open_backend(path, backend=backend, device=device, precision=precision, threads=threads)
        self._set(opened, options, progress)

    @classmethod
    def from_backend(
        cls,
        backend: Backend,
        *,
        tile: int = 1536,
        context: Context = "exact",
        memory_limit: int | None = None,
        progress: bool | Progress = False,
    ) -> Self:
        """A matting around any :class:`~dim_runtime.backends.base.Backend`: engines and tests of your own."""
        made = cls.__new__(cls)
        made._set(backend, Options(tile, context, memory_limit), progress)
        return made

    def _set(self, backend: Backend, options: Options, progress: bool | Progress) -> None:
        self._backend: Backend | None = backend
        self._options, self._progress = options, progress
        self._speed: float | None = None
        limited = options.memory_limit is not None
        # More than one window at a time is memory too: under a limit there is one.
        self._batch = 1 if limited or backend.metadata.static_shape else backend.preferred_batch
        # Two calls at once would each plan as if all the rest were theirs.
        self._turn: AbstractContextManager[Any] = threading.Lock() if limited else nullcontext()

    def __call__(self, image: Image | Sliceable, trimap: UInt8 | Sliceable) -> Float32:
        """Compute an alpha matte.

        Args:
            image: uint8 or uint16 H, W, 3, RGB over the full range of the type; anything that slices like an
                array: ``ndarray``, ``memmap``, zarr.
            trimap: uint8 H, W, likewise: 0 background, 128 unknown, 255 foreground. At most 10 and at least
                245 are read as background and foreground, the rest as unknown, with a :class:`TrimapWarning`.

        Returns:
            float32 H, W in [0, 1]; exactly 0 and 1 where the trimap is known.

        Raises:
            InputError: wrong dtype, channels or size.
            TileError: the tile cannot hold the context.
            MemoryLimitError: no tile keeps the memory limit.
        """
        job = Job(lambda: (image, trimap))
        with reporting(self._progress) as progress:
            self._alone(job, progress)
        return self._taken(job)

    def into(self, image: Image | Sliceable, trimap: UInt8 | Sliceable, out: Writable) -> Plan:
        """Compute an alpha matte into an array of the caller's, window by window.

        Nothing as large as the image is made: with a ``memmap`` or zarr array for all three, peak memory
        depends on the tile alone.

        Args:
            image, trimap: as :meth:`__call__` takes them.
            out: float16, float32 or float64 H, W, read and written by slices. Every pixel is written; after
                an error the content is undefined.

        Returns:
            What was run.

        Raises:
            InputError, TileError, MemoryLimitError: as the call does.
        """
        with self._turn, reporting(self._progress) as progress:
            image, trimap, target = by_windows(image), by_windows(trimap), by_windows(out)
            require_pair(image, trimap)
            require_out(out, trimap)
            found = survey(trimap)
            if found.mapped:
                warnings.warn(TrimapWarning(found.mapped), stacklevel=2)
            taken = target.nbytes if type(target) is np.ndarray else held_bytes(target)
            plan = self._plan(trimap, found, held=taken + held_bytes(image) + held_bytes(trimap))
            run_plan(self._open, image, trimap, plan, target, progress=progress, batch=self._batch)
        return plan

    def on_device(self, image: Any, trimap: Any) -> Any:
        """Alpha of windows that lie in the GPU's memory already: DLPack in, DLPack out, nothing is copied.

        One pass, without tiling: memory is the caller's care. ONNX Runtime with CUDA, TensorRT and
        TensorRT-RTX have it.

        Args:
            image: uint8 N, H, W, 3, RGB; speaks DLPack, on the device of this matting; sides multiples of 32.
            trimap: uint8 N, H, W, likewise: 0 background, 255 foreground, anything else unknown.

        Returns:
            float32 N, H, W in [0, 1]; speaks DLPack.

        Raises:
            BackendError: the back end takes arrays in the computer's memory only.
            InputError: wrong types or shapes.
        """
        return self._open.run_on_device(image, trimap)

    def plan(self, trimap: UInt8 | Sliceable) -> Plan:
        """What a call with this trimap would compute and take: windows, memory, expected time.

        The first plan runs the network on one small window, to learn how fast it is here.

        Raises:
            InputError, TileError, MemoryLimitError: as the call does.
        """
        trimap = by_windows(trimap)
        require_trimap(trimap)
        held = held_bytes(trimap) + ALPHA_BYTES * math.prod(trimap.shape)
        plan = self._plan(trimap, survey(trimap), held=held)
        return replace(plan, seconds=self._expected_seconds(plan))

    def map(self, pairs: Iterable[tuple[Image, UInt8]]) -> Iterator[Float32]:
        """Alpha mattes of pairs of image and trimap, in order; reading, inference and stitching overlap.

        Nothing is read before the first result is asked for. From then on the pairs are pulled by a thread, a
        few images ahead of the caller (``4 + backend.preferred_batch``, the one last returned included), and
        windows of one shape run together where the back end gains from it. Under a ``memory_limit`` nothing
        overlaps: what is in flight is one image, so that the limit holds as it does for a single call; the
        next pair is pulled when its turn comes, and its size need not be known before.

        Args:
            pairs: image and trimap as :meth:`__call__` takes them.

        Yields:
            float32 H, W in [0, 1]. An error of the iterable or of one pair is raised in that pair's place and
            ends the iteration, which may also be closed early: its threads end then. A thread that still
            waits inside ``pairs`` ends when that gives its next pair.
        """
        with reporting(self._progress) as progress:
            for job in self.stream(map(_given, pairs), progress=progress):
                if job.error is not None:
                    raise job.error
                yield self._taken(job)

    def stream(
        self,
        jobs: Iterable[Job],
        *,
        finish: Callable[[Job], None] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Job]:
        """What :meth:`map` and the batch command are made of: jobs in order, each done or with its error.

        Args:
            jobs: each is loaded in a thread, as is all the rest; see
            :class:`~dim_runtime.inference.stream.Job`. finish: called for each job that has its alpha, in a
            thread of its own: to write it, say. A
                job is in flight until the caller asks for the next one.
            progress: called with the windows done and in all of each image.
        """
        if self._options.memory_limit is not None:
            yield from self._one_by_one(jobs, finish, progress)
            return
        pipeline = Pipeline(in_flight=STEPS + self._batch)
        steps = Steps(self._open, self._load, self._batch, progress)
        try:
            for job in steps.run(jobs, pipeline, finish):
                yield job
                del job
                pipeline.release()
        finally:
            pipeline.stop()

    @property
    def memory_limit(self) -> int | None:
        """Peak resident memory of the process during a call, bytes; None for no limit."""
        return self._options.memory_limit

    @property
    def metadata(self) -> ArtefactMetadata:
        """The artefact's document."""
        return self._open.metadata

    def close(self) -> None:
        """Free the engine. Closing twice is fine; calling afterwards is an error."""
        if self._backend is not None:
            self._backend.close()
        self._backend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> Backend:
        if self._backend is None:
            raise InputError("cannot use this Matting: it is closed", fix="make a new one")
        return self._backend

    def _one_by_one(
        self, jobs: Iterable[Job], finish: Callable[[Job], None] | None, progress: Progress | None
    ) -> Iterator[Job]:
        for job in jobs:
            with job.noting():
                self._alone(job, progress)
                if finish is not None:
                    finish(job)
            yield job
            # Or this frame would keep it alive while the next one is read.
            del job

    def _alone(self, job: Job, progress: Progress | None) -> None:
        """Everything that one job needs, in the caller's thread."""
        job.image, job.trimap = map(by_windows, job.load())
        with self._turn:
            job.plan, job.mapped = self._prepare(job.image, job.trimap)
            started = time.perf_counter()
            job.alpha = np.empty(job.trimap.shape, np.float32)
            run_plan(
                self._open, job.image, job.trimap, job.plan, job.alpha, progress=progress, batch=self._batch
            )
        job.seconds = time.perf_counter() - started
        job.let_go()

    @staticmethod
    def _taken(job: Job) -> Float32:
        if job.mapped:
            # Three frames up: whoever called the matting, or asked its iterator for the next result.
            warnings.warn(TrimapWarning(job.mapped), stacklevel=3)
        assert job.alpha is not None, "a job without an error has its alpha"
        alpha, job.alpha = job.alpha, None
        return alpha

    def _load(self, job: Job) -> None:
        job.image, job.trimap = map(by_windows, job.load())
        job.plan, job.mapped = self._prepare(job.image, job.trimap)

    def _prepare(self, image: Sliceable, trimap: Sliceable) -> tuple[Plan, int]:
        """The plan, and how many pixels of the trimap are not 0, 128 or 255."""
        require_pair(image, trimap)
        found = survey(trimap)
        held = held_bytes(image) + held_bytes(trimap) + ALPHA_BYTES * math.prod(trimap.shape)
        return self._plan(trimap, found, held=held), found.mapped

    def _plan(self, trimap: Sliceable, found: Survey, *, held: int) -> Plan:
        """``held``: what arrays and output take during the call, beyond what is resident already; bytes."""
        plan = Planner(trimap.shape, found, self._open, self._options, resident_bytes() + held).plan()
        return plan if self._batch == 1 else replace(plan, peak_bytes=plan.peak_bytes + self._beside(plan))

    def _expected_seconds(self, plan: Plan) -> float:
        area = sum(window.area for window in plan.windows)
        if area and self._speed is None:
            self._speed = pixels_per_second(self._open)
        return area / self._speed if self._speed else 0.0

    def _beside(self, plan: Plan) -> int:
        """Memory of the windows that run together with the first one of a batch, bytes."""
        largest = max(plan.windows, key=lambda window: window.area, default=None)
        if largest is None:
            return 0
        return (self._batch - 1) * self._open.window_bytes(largest.height, largest.width)


def _given(pair: tuple[Image, UInt8]) -> Job:
    return Job(lambda: pair)
