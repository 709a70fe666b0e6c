"""TensorRT and TensorRT-RTX: ``.engine`` files on an NVIDIA GPU, without torch.

No GPU has run this code yet. The tests build real engines, run this code with stand-ins for TensorRT and
``cuda.core``, and compare every call with the signatures of the installed packages.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, ArtefactMetadata, EngineBuilder, Precision
from dim_runtime.artefacts.engine_compatibility import (
    NAMES,
    Place,
    require_builder,
    require_compatible,
    this_platform,
)
from dim_runtime.artefacts.engine_file import EngineHeader, read_header, read_plan
from dim_runtime.backends.base import Backend, require_windows
from dim_runtime.backends.cuda import HOST_BYTES_PER_PIXEL, Gpu, import_core
from dim_runtime.backends.device import require_cuda
from dim_runtime.backends.tensorrt_slot import Slot
from dim_runtime.errors import ArtefactError, BackendError, InputError, MissingExtraError

MODULES: dict[EngineBuilder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
SLOTS = 2
"""One computes while the other's window is copied in or out; each holds the engine's scratch memory."""
HOST_BYTES = 64 * 10**6
"""Host memory of context, stream and driver with the first window, bytes; an estimate, not measured yet."""
KEPT_MESSAGES = 16
"""The last errors of TensorRT that are kept for our messages."""


class TensorRTBackend(Backend):
    """An engine file on one GPU.

    Threads may share it: each call takes a free slot (execution context, stream, buffers) and waits if all
    are busy. There is no slot per thread: threads come and go, and a slot of the full-width network holds
    gigabytes on the GPU. Engines of a frozen shape replay a recorded CUDA graph from the second window on.

    Args:
        path: an engine file of ``dim-export trt``; a plan is machine code, so open only files you trust.
        device: "cuda" or "cuda:N".
        builder: the package that must run it; None takes the one that built it.
        engine: the module to use instead of the installed one, for tests.
        core: the module to use instead of ``cuda.core``, for tests.

    Raises:
        ArtefactError: missing, damaged, or not an engine of this toolkit.
        MissingExtraError: the builder's package or cuda-core is not installed.
        DeviceError: not a CUDA device, or one that is not there.
        BackendError: built by another package, for another release or for another kind of GPU.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cuda",
        builder: EngineBuilder | None = None,
        engine: Any = None,
        core: Any = None,
    ) -> None:
        require_cuda(device)
        self._path = path
        self._header = read_header(path)
        name = builder or self._header.engine.builder
        require_builder(path, self._header.engine, name)
        self._module = _module(name, path) if engine is None else engine
        self._gpu = Gpu(import_core(name) if core is None else core, device)
        self._require_compatible(name)
        self._graphs = self._header.metadata.static_shape is not None
        self._messages = _logger(self._module).messages
        self._runtime, self._engine = load_engine(self._module, path, self._header)
        self._runtime_config: Any = None
        self._idle: list[Slot] = []
        self._free = threading.BoundedSemaphore(SLOTS)
        self._lock = threading.Lock()
        self._closing = threading.Lock()

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._header.metadata

    @property
    def preferred_batch(self) -> int:
        """Largest batch that the engine was built for."""
        profile = self._header.engine.profile
        return 1 if profile is None else profile.max[0]

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        count, height, width = trimap.shape
        self._require_shape((count, height, width))
        with self._slot() as slot, self._explained((count, height, width)):
            return slot.run(image, trimap)

    def run_on_device(self, image: Any, trimap: Any) -> Any:
        with self._slot() as slot:
            colours, unknowns = slot.view(image, "image"), slot.view(trimap, "trimap")
            require_windows(tuple(colours.shape), tuple(unknowns.shape))
            count, height, width = unknowns.shape
            shape = count, height, width
            self._require_shape(shape)
            with self._explained(shape):
                return slot.run_on_device(colours.ptr, unknowns.ptr, shape)

    @contextmanager
    def _explained(self, shape: WindowShape) -> Iterator[None]:
        """Add the windows that were run, and TensorRT's own messages, to the error of a refused call."""
        count, height, width = shape
        self._messages.clear()
        try:
            yield
        except BackendError as error:
            raise BackendError(
                f"{NAMES[self._header.engine.builder]} failed while running {self._path}",
                got=f"{count} windows of {width}×{height} px: {error.got or error.problem}",
                why="; ".join(filter(None, (error.why, *self._messages))) or None,
                fix=error.fix,
            ) from error

    def window_bytes(self, height: int, width: int) -> int:
        """Return an upper bound of the host memory of one window; bytes; the network works on the GPU."""
        return HOST_BYTES + HOST_BYTES_PER_PIXEL * height * width

    def close(self) -> None:
        """Wait for the windows in flight, then free everything. Closing twice is fine."""
        with ExitStack() as stack:
            # One thread at a time: two that each hold a part of the permits would wait for each other.
            stack.enter_context(self._closing)
            for _ in range(SLOTS):
                stack.enter_context(self._free)
            slots, self._idle = self._idle, []
            if slots:
                self._gpu.use()
            # Contexts belong to the engine, the engine to the runtime: freed in that order, come what may.
            stack.callback(self._forget)
            for slot in slots:
                stack.callback(slot.close)

    def _forget(self) -> None:
        self._runtime_config = None
        self._engine = None
        self._runtime = None

    def _require_compatible(self, name: EngineBuilder) -> None:
        here = Place(name, str(self._module.__version__), self._gpu.capability, this_platform())
        require_compatible(self._path, self._header.engine, here)

    def _require_shape(self, shape: WindowShape) -> None:
        frozen, profile = self._header.metadata.static_shape, self._header.engine.profile
        if shape == frozen or (profile is not None and profile.admits(shape)):
            return
        if profile is None:
            expected, fix = f"exactly {frozen}", "build it from an artefact that was exported without --shape"
        else:
            expected, tile = f"from {profile.min} to {profile.max}", min(profile.max[1:])
            fix = (
                f"tile={tile} (--tile {tile}), or build it for larger windows: dim-export trt MODEL.onnx "
                f"-o {self._path.name} --tile {max(shape[1:])} --batch {shape[0]}"
            )
        raise BackendError(
            f"cannot run windows of this shape with {self._path}",
            got=f"N, H, W = {shape}",
            expected=expected,
            why="an engine takes only the shapes that it was built for",
            fix=fix,
        )

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        with self._free:
            slot = self._take()
            try:
                yield slot
            except InputError:
                # Refused before anything was queued: the slot is as it was.
                self._give_back(slot)
                raise
            except BaseException:
                # Work may still be queued on its stream: the next window gets a new slot.
                with suppress(BackendError):
                    slot.close()
                raise
            self._give_back(slot)

    def _take(self) -> Slot:
        self._gpu.use()
        with self._lock:
            if self._engine is None:
                raise BackendError(f"cannot run {self._path}: it is closed", fix="open it again")
            if self._idle:
                return self._idle.pop()
            # Under the lock: TensorRT does not promise that contexts can be made in parallel.
            records = self._graphs and self._header.engine.builder == "tensorrt"
            return Slot(self._gpu, self._new_context(), records)

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            self._idle.append(slot)

    def _new_context(self) -> Any:
        if self._header.engine.builder == "tensorrt-rtx":
            context = self._engine.create_execution_context(self._rtx_config())
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"cannot prepare {self._path} for running",
                why="TensorRT made no execution context; most often the GPU's memory is full",
                fix="an engine for smaller windows (dim-export trt --tile N), or another GPU (cuda:N)",
            )
        return context

    def _rtx_config(self) -> Any:
        """Return the settings of TensorRT-RTX contexts, made once: all share one cache of kernels."""
        if self._runtime_config is None:
            config = self._engine.create_runtime_config()
            config.set_runtime_cache(config.create_runtime_cache())
            # Its default swaps kernels while a shape is in use, so that equal windows get different bits.
            strategies = self._module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.NONE
            if self._graphs:
                config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._runtime_config = config
        return self._runtime_config


def open_engine(
    path: Path,
    *,
    builder: EngineBuilder | None = None,
    device: str = "cuda",
    precision: Precision | None = None,
    threads: int | None = None,
) -> TensorRTBackend:
    """Open an engine file with the options of every back end; those that it lacks are refused.

    Args:
        path, builder, device: as :class:`TensorRTBackend` takes them.
        precision: None, or the engine's own: it was fixed when the engine was built.
        threads: None; a GPU has no such number.

    Raises:
        InputError: threads.
        BackendError: another precision, and what :class:`TensorRTBackend` raises.
    """
    if threads is not None:
        raise InputError(
            "threads do not apply to a TensorRT engine",
            got=threads,
            why="it runs on the GPU",
            fix="leave threads (--threads) out",
        )
    found = read_header(path).metadata.precision
    if precision not in (None, found):
        raise BackendError(
            f"cannot run {path} in {precision}",
            got=f"an engine in {found}",
            why="an engine's precision is fixed when it is built",
            fix=f"dim-export onnx CHECKPOINT -o MODEL.onnx --precision {precision}, then dim-export trt",
        )
    return TensorRTBackend(path, builder=builder, device=device)


def load_engine(module: Any, path: Path, header: EngineHeader) -> tuple[Any, Any]:
    """Load a plan and return TensorRT's runtime and the engine.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        BackendError: TensorRT cannot start here.
        ArtefactError: TensorRT refuses the plan, or its tensors are not those of the contract.
    """
    name = f"{NAMES[header.engine.builder]} {module.__version__}"
    logger = _logger(module)
    logger.messages.clear()
    try:
        runtime = module.Runtime(logger)
    except Exception as error:  # pybind11 raises a TypeError where the library returned nothing
        raise BackendError(
            f"{name} cannot start here",
            why="; ".join([*logger.messages, str(error)]),
            fix="dim-matte doctor --gpu shows what is missing",
        ) from error
    if header.engine.version_compatible:
        # Such a plan contains code for the host, which TensorRT refuses unless the caller trusts the file.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(read_plan(path, header))
    if engine is None:
        raise ArtefactError(
            f"{name} cannot load {path}",
            why="; ".join(logger.messages) or None,
            fix=f"build it again on this machine: dim-export trt MODEL.onnx -o {path.name}",
        )
    _require_tensors(module, engine, path)
    return runtime, engine


def _require_tensors(module: Any, engine: Any, path: Path) -> None:
    """Require the contract's tensors: the engine reads and writes raw addresses."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: engine.get_tensor_dtype(name) for name in names}
    kinds = module.DataType
    wanted = {INPUT_IMAGE: kinds.UINT8, INPUT_TRIMAP: kinds.UINT8, OUTPUT_ALPHA: kinds.FLOAT}
    if found != wanted:
        raise ArtefactError(
            f"cannot use {path}: its tensors are not those of the contract",
            got=", ".join(f"{name} {kind}" for name, kind in found.items()),
            expected=", ".join(f"{name} {kind}" for name, kind in wanted.items()),
        )


def _module(builder: EngineBuilder, path: Path) -> Any:
    try:
        return import_module(MODULES[builder])
    except ImportError as error:
        raise MissingExtraError(
            f"run {path.name}", package=MODULES[builder], extra=builder, cause=error
        ) from error


@cache
def _logger(module: Any) -> Any:
    """Return the logger of a TensorRT module, which keeps the last errors and drops the rest.

    One for each module: TensorRT itself keeps the first logger of a process and ignores later ones.
    """

    class Collector(module.ILogger):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.ERROR:
                self.messages.append(message)

    return Collector()
