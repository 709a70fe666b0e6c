"""The front door: image and trimap in, alpha out."""

from __future__ import annotations

import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

import dim.trimap
from dim.arrays import Float32, Image, UInt8
from dim.contract import ArtefactMetadata
from dim.errors import InputError
from dim_runtime.arrays import (
    Sliceable,
    Writable,
    as_array,
    by_windows,
    held_bytes,
    require_out,
    require_pair,
    require_separate,
    require_trimap,
)
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import BackendName, Precision, model_path, open_backend
from dim_runtime.errors import FrozenShapeWarning, NothingUnknownWarning, TrimapWarning
from dim_runtime.inference.stream import Job, Stream, one_by_one
from dim_runtime.inference.tiler import pixels_per_second, run_plan
from dim_runtime.memory import parse_bytes, release_free_memory, resident_bytes
from dim_runtime.planning.geometry import Plan
from dim_runtime.planning.planner import Context, Planner, PlanOptions, Tile
from dim_runtime.planning.survey import TrimapSurvey, survey
from dim_runtime.progress import Progress, reporting
from dim_runtime.settings import MattingOptions

_log = logging.getLogger(__name__)

ALPHA_BYTES = 4
"""Bytes per pixel of a float32 alpha."""


class _Computed(NamedTuple):
    plan: Plan
    mapped: int
    """Pixels of the trimap that are not 0, 128 or 255."""
    seconds: float
    """Time of the windows, planning excluded."""


class Matting:
    """Deep Image Matting without PyTorch, for images of any size. Threads may share one.

    Args:
        model: an ``.onnx`` or ``.engine`` artefact of ``dim-export``, or the name of a model of this package
            (:data:`~dim_runtime.backends.open.SHIPPED_MODELS`); None for the embedded one.
        backend: the name of a back end, or an open :class:`~dim_runtime.backends.base.Backend`, which takes
            the place of ``model``, ``device``, ``precision``, ``threads`` and ``cache``. None chooses by the
            suffix.
        device: "cpu", "cuda" or "cuda:N"; a device that is not there is an error.
        precision: None for the artefact's own.
        tile: largest window side, context included; a multiple of 32 pixels. "auto" plans with several, and
            takes one of little work and memory that fits in ``memory_limit``, or in half of the memory that
            is available.
        context: "exact" computes the alpha of the whole image, whatever the tile; a smaller number of pixels
            (a multiple of 32) is faster and close to it: windows are then blended.
        threads: threads of one operator, at most 1024 or the machine's logical CPUs if these are more; None
            leaves the choice to the engine.
        memory_limit: peak resident memory of the process during a call, bytes or a text such as "2GB"; the
            caller's arrays, the model and the output count. The tile is lowered to keep it, and calls of
            several threads run one after the other.
        cache: folder in which OpenVINO's compiled graphs are kept, so that the next process starts faster;
            only you may be allowed to write to it. None for none.
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
        backend: BackendName | Backend | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        tile: Tile = "auto",
        context: Context = "exact",
        threads: int | None = None,
        memory_limit: int | str | None = None,
        cache: str | Path | None = None,
        progress: bool | Progress = False,
    ) -> None:
        # Validate options before loading the model, to fail fast.
        limit = parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit
        self._options, self._progress = PlanOptions(tile, context, limit), progress
        self._backend: Backend | None
        if isinstance(backend, Backend):
            _require_alone(model=model, device=device, precision=precision, threads=threads, cache=cache)
            self._backend = backend
        else:
            path = model_path(model)
            self._backend = open_backend(
                path,
                backend=backend,
                device=device,
                precision=precision,
                threads=threads,
                cache=None if cache is None else Path(cache),
            )
            _log.info("opened %s with %s on %s", path, type(self._backend).__name__, device)
        self._speed: float | None = None
        metadata = self._backend.metadata
        # More than one window at a time is memory too: under a limit there is one.
        self._batch = 1 if limit is not None or metadata.static_shape else self._backend.preferred_batch
        # Two calls at once would each plan as if all the rest were free. A progress callback may call again.
        self._turn: AbstractContextManager[Any] = threading.RLock() if limit is not None else nullcontext()

    @classmethod
    def from_options(cls, options: MattingOptions, progress: bool | Progress = False) -> Self:
        """Load the model that the options name; errors as :class:`Matting`."""
        # asdict copies deeply; all values are plain.
        return cls(**asdict(options), progress=progress)

    @classmethod
    def from_backend(
        cls,
        backend: Backend,
        *,
        tile: Tile = "auto",
        context: Context = "exact",
        memory_limit: int | str | None = None,
        progress: bool | Progress = False,
    ) -> Self:
        """Make a matting around an open back end: a server's, or :mod:`dim_runtime.backends.fake`."""
        return cls(backend=backend, tile=tile, context=context, memory_limit=memory_limit, progress=progress)

    def __call__(self, image: Image | Sliceable, trimap: UInt8 | Sliceable) -> Float32:
        """Compute an alpha matte.

        Args:
            image: uint8 or uint16 H, W, 3, RGB over the full range of the type (OpenCV reads BGR:
                ``image[..., ::-1]``); anything that slices like an array (``ndarray``, ``memmap``, zarr) or
                has ``__array__``, such as a PIL image, which is not turned by its EXIF orientation.
            trimap: uint8 H, W, likewise: 0 background, 128 unknown, 255 foreground. At most 10 and at least
                245 are read as background and foreground, the rest as unknown, with a :class:`TrimapWarning`.
                Labels such as 0, 1, 2, of which none exceeds 10, are an error; a trimap of 0 alone is not.

        Returns:
            float32 H, W in [0, 1]; exactly 0 and 1 where the trimap is known.

        Raises:
            InputError: wrong dtype, channels or size, or a trimap of labels.
            TileError: the tile cannot hold the context.
            MemoryLimitError: no tile keeps the memory limit.
            BackendError: the engine failed, or what it computed is no alpha.
        """
        trimap = as_array(trimap, "trimap")
        require_trimap(trimap)
        alpha = np.empty(trimap.shape, np.float32)
        self._into(image, trimap, alpha)
        return alpha

    def into(
        self,
        image: Image | Sliceable,
        trimap: UInt8 | Sliceable,
        out: Writable,
        *,
        progress: Progress | None = None,
    ) -> Plan:
        """Compute an alpha matte into an array of the caller, which may be larger than memory.

        Args:
            image: as :meth:`__call__` takes it.
            trimap: the same.
            out: float16, float32 or float64 H, W that is written by slices: ``ndarray``, ``memmap``, zarr. It
                shares no memory with the image or the trimap.
            progress: called with windows done and in all, in place of the constructor's.

        Returns:
            The plan that was run.

        Raises:
            InputError, TileError, MemoryLimitError, BackendError: as :meth:`__call__`.
        """
        return self._into(image, trimap, out, progress)

    def on_device(self, image: Any, trimap: Any) -> Any:
        """Compute the alpha of windows that are in the GPU's memory: DLPack in and out, without copies.

        One pass, without tiling and without a memory limit. ONNX Runtime with CUDA, TensorRT and
        TensorRT-RTX support it.

        Args:
            image: uint8 N, H, W, 3, RGB; supports DLPack, on this matting's device; H, W multiples of 32.
            trimap: uint8 N, H, W, likewise: 0 background, 255 foreground, anything else unknown.

        Returns:
            float32 N, H, W in [0, 1]; supports DLPack.

        Raises:
            BackendError: the back end takes arrays in the computer's memory only.
            InputError: wrong types or shapes.
        """
        return self._open.run_on_device(image, trimap)

    def plan(
        self, trimap: UInt8 | Sliceable, image: Image | Sliceable | None = None, out: Writable | None = None
    ) -> Plan:
        """Return the windows, the peak memory and the expected time of a call with this trimap.

        The first plan runs the network on one small window, to measure its speed.

        Args:
            trimap: as :meth:`__call__` takes it.
            image: the image of the call, if reading it takes memory: a memory-mapped file, or a reader.
            out: the array of :meth:`into`, which is not written; None for a new one in memory.

        Raises:
            InputError, TileError, MemoryLimitError: as the call does.
        """
        with self._turn:
            trimap = by_windows(as_array(trimap, "trimap"))
            require_trimap(trimap)
            plan = self._plan(survey(trimap), trimap, by_windows(image), by_windows(out))
            return replace(plan, seconds=self._expected_seconds(plan))

    def map(self, pairs: Iterable[tuple[Image, UInt8]]) -> Iterator[Float32]:
        """Compute the alpha mattes of pairs of image and trimap, in order, with overlapping steps.

        Nothing is read before the first result is requested. From then on a thread pulls the pairs, a few
        images ahead of the caller (``4 + backend.preferred_batch * backend.in_flight``, the one last returned
        included), and windows run together where the back end gains from it. Under a ``memory_limit`` nothing
        overlaps: one image is in flight, so that the limit holds as it does for a single call; the next pair
        is pulled when its turn comes, and its size need not be known before.

        Args:
            pairs: image and trimap as :meth:`__call__` takes them.

        Yields:
            float32 H, W in [0, 1]. An error of the iterable or of one pair is raised in that pair's place and
            ends the iteration, which may also be closed early: its threads end then. A thread that still
            waits inside ``pairs`` ends at its next pair.

        Raises:
            InputError: with the first result, if ``pairs`` is no iterable.
        """
        with reporting(self._progress) as progress:
            for job in self.stream(map(_given, _iterated(pairs)), progress=progress):
                alpha = job.take_alpha()
                for warning in _warnings(job.plan, job.mapped):
                    # stacklevel=2 makes the warning point at the caller's request for the next result.
                    warnings.warn(warning, stacklevel=2)
                yield alpha
                del alpha

    def stream(
        self,
        jobs: Iterable[Job],
        *,
        finish: Callable[[Job], None] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Job]:
        """Yield jobs in order, each done or with its error: the core of :meth:`map` and of the batch command.

        Args:
            jobs: see :class:`~dim_runtime.inference.stream.Job`; each is loaded in a thread.
            finish: called for each job that has its alpha, in a separate thread, for example to write it. A
                job is in flight until the next one is requested.
            progress: called with the windows done and in all of each image.
        """
        if self._options.memory_limit is not None:
            return one_by_one(jobs, lambda job: self._run_job(job, progress), finish)
        return Stream(self._open, self._prepare, self._batch, progress).run(jobs, finish)

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

    def __reduce__(self) -> Any:
        raise InputError(
            "cannot pickle a Matting",
            why="it holds an open engine",
            fix="send its arguments (dim_runtime.settings.MattingOptions) and open it in each process",
        )

    @property
    def _open(self) -> Backend:
        if self._backend is None:
            raise InputError("cannot use this Matting: it is closed", fix="make a new one")
        return self._backend

    def _into(self, image: Any, trimap: Any, out: Any, progress: Progress | None = None) -> Plan:
        with reporting(progress or self._progress) as chosen:
            computed = self._compute(image, trimap, out, chosen)
        for warning in _warnings(computed.plan, computed.mapped):
            # stacklevel=3 makes the warning point at the caller of Matting() or into().
            warnings.warn(warning, stacklevel=3)
        return computed.plan

    def _compute(self, image: Any, trimap: Any, out: Any, progress: Progress | None) -> _Computed:
        """Validate, plan and run one image in the caller's thread."""
        image, trimap = as_array(image, "image"), as_array(trimap, "trimap")
        require_separate(out, image=image, trimap=trimap)
        image, trimap, out = by_windows(image), by_windows(trimap), by_windows(out)
        require_pair(image, trimap)
        require_out(out, trimap)
        with self._turn:
            found = survey(trimap)
            plan = self._plan(found, trimap, image, out)
            started = time.perf_counter()
            run_plan(self._open, image, trimap, plan, out, progress=progress, batch=self._batch)
            # The caller may need the memory, for example to encode the alpha.
            self._release_under_limit()
        seconds = time.perf_counter() - started
        _log.info("%d×%d px, %d windows, %.3f s", plan.width, plan.height, len(plan.windows), seconds)
        return _Computed(plan, found.mapped, seconds)

    def _run_job(self, job: Job, progress: Progress | None) -> None:
        image, trimap = _loaded(job)
        trimap = as_array(trimap, "trimap")
        require_trimap(trimap)
        job.alpha = np.empty(trimap.shape, np.float32)
        job.plan, job.mapped, job.seconds = self._compute(image, trimap, job.alpha, progress)

    def _prepare(self, job: Job) -> None:
        image, trimap = _loaded(job)
        job.image, job.trimap = by_windows(as_array(image, "image")), by_windows(as_array(trimap, "trimap"))
        require_pair(job.image, job.trimap)
        found = survey(job.trimap)
        job.plan, job.mapped = self._plan(found, job.trimap, job.image), found.mapped

    def _plan(self, found: TrimapSurvey, trimap: Any, image: Any = None, out: Any = None) -> Plan:
        """Plan one image; without ``out`` for a new float32 array."""
        _require_scale(found, trimap)
        # What is kept for the next window would count twice: as held, and as what the windows need.
        self._release_under_limit()
        held = resident_bytes() + held_bytes(image) + held_bytes(trimap) + _output_bytes(trimap, out)
        plan = Planner(found, self._open, self._options, held_bytes=held).plan()
        return self._together(plan)

    def _release_under_limit(self) -> None:
        """Return memory that the back end and the C library keep for further windows, if there is a limit."""
        if self._options.memory_limit is not None:
            self._open.release_memory()
            release_free_memory()

    def _expected_seconds(self, plan: Plan) -> float:
        if plan.area and self._speed is None:
            self._speed = pixels_per_second(self._open)
        return plan.area / self._speed if self._speed else 0.0

    def _together(self, plan: Plan) -> Plan:
        """Return the plan with the calls that run at one time, and the memory of their other windows."""
        largest = max(plan.windows, key=lambda window: window.area, default=None)
        if largest is None:
            return plan
        each = self._open.further_bytes(largest.height, largest.width)
        wanted = self._open.calls_at_once([(window.height, window.width) for window in plan.windows])
        calls = min(wanted, -(-len(plan.windows) // self._batch))
        if self._options.memory_limit is not None:
            calls = min(calls, 1 + (self._options.memory_limit - plan.peak_bytes) // max(each, 1))
        peak = plan.peak_bytes + (self._batch * calls - 1) * each
        return replace(plan, in_flight=calls, peak_bytes=peak)


def _require_scale(found: TrimapSurvey, trimap: Any) -> None:
    """Raise InputError for labels such as 0, 1, 2; a reader of files names its file in the error."""
    if found.labels:
        if hasattr(trimap, "require_scale"):
            trimap.require_scale()
        dim.trimap.require_scale(np.array([found.labels], np.uint8), dim.trimap.ARRAY)


def _iterated(pairs: Any) -> Iterator[Any]:
    try:
        return iter(pairs)
    except TypeError as error:
        raise InputError(
            "cannot use these pairs",
            got=type(pairs).__name__,
            expected="an iterable of tuples of image and trimap",
            fix="matting.map([(image, trimap), …])",
        ) from error


def _given(pair: Any) -> Job:
    return Job(lambda: pair)


def _loaded(job: Job) -> tuple[Any, Any]:
    pair = job.load()
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return pair[0], pair[1]
    raise InputError(
        "cannot use this pair",
        got=f"{type(pair).__name__}{f' of {len(pair)}' if isinstance(pair, tuple | list) else ''}",
        expected="a tuple of image and trimap",
        fix="matting.map([(image, trimap), …])",
    )


def _warnings(plan: Plan | None, mapped: int) -> Iterator[Warning]:
    if mapped:
        yield TrimapWarning(mapped)
    if plan is not None and plan.unknown_pixels == 0:
        yield NothingUnknownWarning()
    if plan is not None and plan.windows and plan.frozen_padding and plan.note is not None:
        yield FrozenShapeWarning(plan.note)


def _output_bytes(trimap: Sliceable, out: object) -> int:
    """Return what the output adds to the process; all of an ndarray, whose pages may not exist yet."""
    if out is None:
        return ALPHA_BYTES * math.prod(trimap.shape)
    return out.nbytes if type(out) is np.ndarray else held_bytes(out)


def _require_alone(**options: Any) -> None:
    usual = {"model": None, "device": "cpu", "precision": None, "threads": None, "cache": None}
    given = [name for name, value in options.items() if value != usual[name]]
    if given:
        raise InputError(
            "cannot combine an open back end with these arguments",
            got=", ".join(given),
            why="the back end was opened with its own",
            fix="pass them when the back end is opened",
        )
