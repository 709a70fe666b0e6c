"""TensorRT and TensorRT-RTX: ``.engine`` files on an NVIDIA GPU, without torch.

Never executed on a GPU so far. Engines are built for real in the tests, and the order of the calls is tested
with a fake engine and a fake CUDA; the first run on a GPU is still to come.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from math import prod
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
from dim_runtime.backends.cuda import Cuda, cuda_runtime, device_number
from dim_runtime.backends.dlpack import DeviceArray, borrowed
from dim_runtime.backends.tensorrt_slot import Lane
from dim_runtime.errors import ArtefactError, BackendError, InputError, MissingExtraError

MODULES: dict[EngineBuilder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
LANES = 2
"""One computes while the other's window is copied in or out; each holds the engine's scratch memory."""
ALPHA_BYTES = 4
HOST_BYTES_PER_PIXEL = 12
"""Page-locked image, trimap and alpha (3 + 1 + 4), and the alpha that is returned (4)."""
HOST_BYTES = 64 * 10**6
"""What context, stream and driver take on the host with the first window; not measured yet."""


class TensorRTBackend(Backend):
    """An engine file on one GPU.

    Threads may share it: each call takes a lane (execution context, stream, buffers) of its own, and waits
    if all are busy. Not a lane per thread: threads come and go, and a lane of the full-width network holds
    gigabytes on the GPU.

    Args:
        path: an engine file of ``dim-export trt``; a plan is machine code, so open only files you trust.
        device: "cuda" or "cuda:N".
        builder: the package that must run it; None takes the one that built it.
        cuda_graphs: replay a recorded launch where the shape is the one before; worth it for small windows.
            None turns it on for engines of a frozen shape.
        lanes: windows in flight at once, 1 or more.
        engine: the module to use instead of the installed one, for tests.
        runtime: the module to use instead of ``cuda.bindings.runtime``, for tests.

    Raises:
        ArtefactError: missing, damaged, or not an engine of this toolkit.
        MissingExtraError: the builder's package or cuda-python is not installed.
        DeviceError: not a CUDA device, or one that is not there.
        BackendError: built by another package, for another release or for another kind of GPU.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cuda",
        builder: EngineBuilder | None = None,
        cuda_graphs: bool | None = None,
        lanes: int = LANES,
        engine: Any = None,
        runtime: Any = None,
    ) -> None:
        if lanes < 1:
            raise InputError("cannot use this number of lanes", got=lanes, expected="1 or more")
        device_number(device)
        self._path = path
        self._header = read_header(path)
        name = builder or self._header.engine.builder
        require_builder(path, self._header.engine, name)
        self._module = _module(name, path) if engine is None else engine
        self._cuda = Cuda(cuda_runtime(name) if runtime is None else runtime, device)
        self._require_compatible(name)
        frozen = self._header.metadata.static_shape is not None
        self._graphs = frozen if cuda_graphs is None else cuda_graphs
        self._cuda.use()
        self._runtime, self._engine = load_engine(self._module, path, self._header)
        self._idle: list[Lane] = []
        self._count = lanes
        self._slots = threading.BoundedSemaphore(lanes)
        self._lock = threading.Lock()

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._header.metadata

    @property
    def preferred_batch(self) -> int:
        """The most windows that the engine was built to take at once."""
        profile = self._header.engine.profile
        return 1 if profile is None else profile.most[0]

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        count, height, width = trimap.shape
        self._require_shape((count, height, width))
        with self._lane() as lane, self._explained((count, height, width)):
            return lane.run(image, trimap)

    def run_on_device(self, image: Any, trimap: Any) -> DeviceArray:
        gpu = self._cuda.number
        with borrowed(image, "image", gpu) as colours, borrowed(trimap, "trimap", gpu) as hints:
            require_windows(colours.shape, hints.shape)
            count, height, width = hints.shape
            shape = count, height, width
            self._require_shape(shape)
            with self._lane() as lane, self._explained(shape):
                alpha = self._new_alpha(shape)
                lane.run_on_device(colours.address, hints.address, alpha.address, shape)
        return alpha

    def _new_alpha(self, shape: WindowShape) -> DeviceArray:
        address = self._cuda.allocate(ALPHA_BYTES * prod(shape))
        return DeviceArray(address, shape, self._cuda.number, self._cuda.free)

    @contextmanager
    def _explained(self, shape: WindowShape) -> Iterator[None]:
        """A refused call told with what was run."""
        count, height, width = shape
        try:
            yield
        except BackendError as error:
            raise BackendError(
                f"{NAMES[self._header.engine.builder]} failed while running {self._path}",
                got=f"{count} windows of {width}×{height} px: {error.got or error.problem}",
                why=error.why,
                fix=error.fix,
            ) from error

    def window_bytes(self, height: int, width: int) -> int:
        """Host memory only: the network itself works on the GPU."""
        return HOST_BYTES + HOST_BYTES_PER_PIXEL * height * width

    def close(self) -> None:
        """Wait for the windows in flight, then free everything. Closing twice is fine."""
        with ExitStack() as stack:
            for _ in range(self._count):
                stack.enter_context(self._slots)
            lanes, self._idle = self._idle, []
            if lanes:
                self._cuda.use()
            # Contexts belong to the engine, the engine to the runtime: freed in that order, come what may.
            stack.callback(self._forget)
            for lane in lanes:
                stack.callback(lane.close)

    def _forget(self) -> None:
        self._engine = None
        self._runtime = None

    def _require_compatible(self, name: EngineBuilder) -> None:
        here = Place(name, str(self._module.__version__), self._cuda.compute_capability(), this_platform())
        require_compatible(self._path, self._header.engine, here)

    def _require_shape(self, shape: WindowShape) -> None:
        frozen, profile = self._header.metadata.static_shape, self._header.engine.profile
        if shape == frozen or (profile is not None and profile.admits(shape)):
            return
        if profile is None:
            expected, fix = f"exactly {frozen}", "build it from an artefact that was exported without --shape"
        else:
            expected, tile = f"from {profile.least} to {profile.most}", min(profile.most[1:])
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
    def _lane(self) -> Iterator[Lane]:
        with self._slots:
            lane = self._take()
            try:
                yield lane
            except BaseException:
                # Nobody knows what is still under way in it: the next window gets a new one.
                with suppress(BackendError):
                    lane.close()
                raise
            with self._lock:
                self._idle.append(lane)

    def _take(self) -> Lane:
        self._cuda.use()
        with self._lock:
            if self._engine is None:
                raise BackendError(f"cannot run {self._path}: it is closed", fix="open it again")
            # Under the lock: TensorRT does not promise that contexts can be made in parallel.
            return self._idle.pop() if self._idle else Lane(self._cuda, self._new_context(), self._replays)

    @property
    def _replays(self) -> bool:
        """TensorRT-RTX records launches by itself; for TensorRT the lane does."""
        return self._graphs and self._header.engine.builder == "tensorrt"

    def _new_context(self) -> Any:
        if self._graphs and self._header.engine.builder == "tensorrt-rtx":
            config = self._engine.create_runtime_config()
            config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"cannot prepare {self._path} for running",
                why="TensorRT made no execution context; most often the GPU's memory is full",
                fix="an engine for smaller windows (dim-export trt --tile N), or another GPU (cuda:N)",
            )
        return context


def open_engine(
    path: Path,
    *,
    builder: EngineBuilder | None = None,
    device: str = "cuda",
    precision: Precision | None = None,
    threads: int | None = None,
) -> TensorRTBackend:
    """Open an engine file with the options that every back end is offered; those it lacks are refused.

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
    """TensorRT's runtime and the engine in it; ArtefactError with TensorRT's own words if it refuses.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
    """
    problems: list[str] = []
    runtime = module.Runtime(_logger(module, problems))
    if header.engine.version_compatible:
        # Such a plan brings code for the host, which TensorRT refuses unless told to trust the file.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(read_plan(path, header))
    if engine is None:
        raise ArtefactError(
            f"{NAMES[header.engine.builder]} {module.__version__} cannot load {path}",
            why="; ".join(problems) or None,
            fix=f"build it again on this machine: dim-export trt MODEL.onnx -o {path.name}",
        )
    _require_tensors(module, engine, path)
    return runtime, engine


def _require_tensors(module: Any, engine: Any, path: Path) -> None:
    """What is read from and written to raw addresses must be what the contract says."""
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
        raise MissingExtraError(f"run {path.name}", package=MODULES[builder], extra=builder) from error


def _logger(module: Any, problems: list[str]) -> Any:
    """A logger that keeps errors for our own messages and drops the rest."""

    class Collector(module.ILogger):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.ERROR:
                problems.append(message)

    return Collector()
