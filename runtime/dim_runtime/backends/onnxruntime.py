"""ONNX Runtime: the CPU, and CUDA where its GPU build is installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dim.arrays import Floating, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, REFINED, TRUST, ArtefactMetadata, Precision
from dim.contract.cropping import NO_MARGINS, Margins, output_margins
from dim.extras import silence_onnxruntime
from dim_runtime.artefacts.onnx_cut import crop_inputs, crop_limits, read_parts
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.artefacts.onnx_unsigned import with_unsigned_values
from dim_runtime.backends.base import (
    ENGINE_BYTES,
    Backend,
    Estimate,
    Tensor,
    first_line,
    inside,
    require_contract,
    require_single_windows,
)
from dim_runtime.backends.device import parse_device
from dim_runtime.backends.threads import EngineThreads, fitting
from dim_runtime.errors import ArtefactError, BackendError, DimError, MissingExtraError
from dim_runtime.memory import release_free_memory

if TYPE_CHECKING:
    from dim_runtime.backends.io_binding import BoundSession

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_HOST_BYTES = 12
"""Bytes per pixel on the host: image, trimap and alpha (3 + 1 + 4), and the alpha that is returned (4)."""
SHRINK_ARENA = "memory.enable_memory_arena_shrinkage"
SAME_AS_REQUESTED = 1
ALREADY_THERE = "already been registered"
KEPT_BYTES = 300_000_000
"""Bytes of a window whose memory may be kept: a photograph of 0.8 megapixels in the embedded model."""
IDENTITY = (
    b'\x08\x08\x12\x00:/\n\x10\n\x01a\x12\x01b"\x08Identity\x12\x01gZ\x0b\n\x01a\x12\x06\n\x04\x08\t\x12\x00'
    b"b\x0b\n\x01b\x12\x06\n\x04\x08\t\x12\x00B\x04\n\x00\x10\r"
)
"""An ONNX file of one node, b = Identity(a), of one bool. Only runs return memory; this one is quick."""


class KeptMemory:
    """Chooses for each run of a back end whether the arena keeps its memory. Threads may share it.

    An arena that returns a window's memory bounds the process by one window. The next window of the same size
    then faults all its pages again, which takes up to a sixth of the time of a small photograph. So a small
    window's memory is kept while windows of that shape follow, and returned before any other shape.

    Args:
        engine: the module ``onnxruntime``.
    """

    def __init__(self, engine: Any) -> None:
        register_arena(engine)
        self._keeping, self._returning = engine.RunOptions(), engine.RunOptions()
        self._returning.add_run_config_entry(SHRINK_ARENA, "cpu:0")
        self._identity = engine.InferenceSession(
            IDENTITY, _identity_options(engine), providers=[CPU_PROVIDER]
        )
        self._lock = threading.Lock()
        self._running = 0
        self._kept: dict[str, tuple[int, ...]] = {}
        """Shape of the windows whose memory is kept, for each graph."""

    @contextmanager
    def run(self, graph: str, shape: tuple[int, ...], needed: int) -> Iterator[Any]:
        """Yield the options of a run.

        Args:
            graph: the network, or another graph that runs in turn with it.
            shape: N, H, W of the windows.
            needed: bytes that the run takes.
        """
        with self._lock:
            if self._kept.get(graph, shape) != shape:
                self._release()
            # Two runs at once would leave the memory of two windows.
            keep = needed <= KEPT_BYTES and not self._running
            if not keep:
                self._kept.clear()
            self._running += 1
        try:
            yield self._keeping if keep else self._returning
        finally:
            with self._lock:
                self._running -= 1
                if keep and self._running:
                    self._release()
                elif keep:
                    self._kept[graph] = shape

    @property
    def keeps(self) -> bool:
        """Whether memory is kept for the next window."""
        return bool(self._kept)

    def release(self) -> None:
        """Return what is kept to the system."""
        with self._lock:
            if self.keeps:
                self._release()

    def _release(self) -> None:
        self._kept.clear()
        self._identity.run(None, {"a": np.zeros((), np.bool_)}, self._returning)
        # The arena frees it to the C library, where windows of many shapes would leave ever more of it.
        release_free_memory()


class OnnxRuntimeBackend(Backend):
    """An ``.onnx`` artefact in ONNX Runtime. Threads may share it.

    Args:
        path: the artefact.
        device: "cpu", "cuda" or "cuda:N".
        precision: None, or the artefact's own: ONNX Runtime computes in the graph's types (fp16 on the CPU
            in float32, between casts).
        threads: threads of one operator; None lets ONNX Runtime take one per physical core.

    Raises:
        ArtefactError: missing, damaged, or not an artefact of this toolkit.
        MissingExtraError: ONNX Runtime is not installed.
        DeviceError: an unknown device, or one that is not there.
        BackendError: the device cannot run this artefact.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> None:
        self._path = path
        self._metadata = read_metadata(path)
        require_single_windows(path, self._metadata)
        _require_own_precision(path, self._metadata, precision)
        _require_runnable(path, self._metadata)
        engine = _engine(path)
        self._bound: BoundSession | None = None
        if parse_device(device).kind == "cuda":
            self._bound = _open_on_cuda(engine, path, device, threads)
            self._run_options = engine.RunOptions()
        else:
            self._open_on_cpu(engine, threads)
            self._threads = EngineThreads(fitting(threads))
            self._memory = KeptMemory(engine)

    def _open_on_cpu(self, engine: Any, threads: int | None) -> None:
        path = self._path
        self._metadata, network, propagation = read_parts(path, self._metadata)
        if self._metadata.precision == "int8":
            network = with_unsigned_values(network if isinstance(network, bytes) else network.read_bytes())
        model = network if isinstance(network, bytes) else str(network)
        self._session: Any = _session(engine, path, [CPU_PROVIDER], threads, model)
        self._propagation: Any = None
        if propagation is not None:
            self._propagation = _session(engine, path, [CPU_PROVIDER], threads, propagation)
        outputs = (self._propagation or self._session).get_outputs()
        limits = crop_inputs(self._metadata.network)
        own_inputs = [node for node in self._session.get_inputs() if node.name not in limits]
        require_contract(path, _tensors(own_inputs), _tensors(outputs))

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @property
    def crops(self) -> bool:
        return self._bound is None and self._metadata.crops

    @property
    def phases(self) -> bool:
        return self._bound is None and self._metadata.phases

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        with self._explained(f"{len(trimap)} windows of {trimap.shape[2]}×{trimap.shape[1]} px"):
            if self._bound is not None:
                return self._bound.run(image, trimap, self._run_options)
            estimate = self._estimate(image, trimap, NO_MARGINS, NO_MARGINS)
            return self._propagated(image, trimap, estimate) if self.phases else estimate.alpha

    def run_core(
        self, image: UInt8, trimap: UInt8, margins: Margins, beyond: Margins = NO_MARGINS
    ) -> Estimate:
        if not self.crops:
            return super().run_core(image, trimap, margins, beyond)
        with self._explained(f"{len(trimap)} windows of {trimap.shape[2]}×{trimap.shape[1]} px"):
            return self._estimate(image, trimap, margins, beyond)

    def propagate(self, image: UInt8, trimap: UInt8, estimate: Estimate) -> Floating:
        with self._explained(
            f"propagation in {len(trimap)} windows of {trimap.shape[2]}×{trimap.shape[1]} px"
        ):
            return self._propagated(image, trimap, estimate)

    def _estimate(self, image: UInt8, trimap: UInt8, margins: Margins, beyond: Margins) -> Estimate:
        inputs = {INPUT_IMAGE: image, INPUT_TRIMAP: trimap}
        if not self.crops:
            return Estimate(self._run(self._session, [OUTPUT_ALPHA], inputs)[0])
        network = self._metadata.network
        found = self._run(
            self._session,
            [REFINED, TRUST] if self.phases else [OUTPUT_ALPHA],
            inputs | crop_limits(network, margins),
        )
        dropped = output_margins(network, margins).less(beyond)
        return Estimate(
            *(inside(planes.reshape(len(image), *planes.shape[-2:]), dropped) for planes in found)
        )

    def _propagated(self, image: UInt8, trimap: UInt8, estimate: Estimate) -> Floating:
        assert estimate.trust is not None, "an estimate of two phases has trust"
        inputs = {
            INPUT_IMAGE: image,
            INPUT_TRIMAP: trimap,
            REFINED: np.ascontiguousarray(estimate.alpha[:, None]),
            TRUST: np.ascontiguousarray(estimate.trust[:, None]),
        }
        return self._run(self._propagation, [OUTPUT_ALPHA], inputs)[0]

    def _run(self, session: Any, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Floating]:
        if session is None:
            raise BackendError("cannot run this network: it was closed", fix="close it after the last call")
        count, height, width = shape = inputs[INPUT_TRIMAP].shape
        graph = "network" if session is self._session else "propagation"
        with self._memory.run(graph, shape, count * self.window_bytes(height, width)) as options:
            run = partial(session.run, outputs, inputs, options)
            found: list[Floating] = self._threads.run(inputs[INPUT_TRIMAP].size, run)
            return found

    def run_on_device(self, image: Any, trimap: Any) -> Any:
        if self._bound is None:
            return super().run_on_device(image, trimap)
        with self._explained("windows on the GPU"):
            return self._bound.run_on_device(image, trimap, self._run_options)

    def window_bytes(self, height: int, width: int) -> int:
        """Return an upper bound of the host memory that :meth:`run` takes for one window; bytes."""
        if self._bound is None:
            return super().window_bytes(height, width)
        return ENGINE_BYTES + CUDA_HOST_BYTES * height * width

    def release_memory(self) -> None:
        if self._bound is None:
            self._memory.release()

    def before_propagation(self) -> None:
        self.release_memory()

    def close(self) -> None:
        """Free the engine. Closing twice is fine."""
        if self._bound is not None:
            self._bound.close()
        self.release_memory()
        self._session = self._propagation = None

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise every error of ONNX Runtime, which has one class for all of them, as a BackendError."""
        try:
            yield
        except DimError:
            raise
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed while running {self._path}",
                got=what,
                why=first_line(error),
                fix="if memory ran out: a smaller tile (--tile), or --memory-limit",
            ) from error


def _engine(path: Path) -> Any:
    silence_onnxruntime()
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"run {path.name}", package="onnxruntime", extra="cpu", cause=error
        ) from error
    return onnxruntime


@cache
def register_arena(engine: Any) -> None:
    """Register an arena that grows by the requested size. A session's own doubles: up to 1.4 × the memory.

    ONNX Runtime has such an arena only for the whole process. Other sessions of the process use it only if
    their options request a shared arena. If such a session has registered one already, release 1.19 refuses
    a second, and ours use the first.
    """
    memory = engine.OrtMemoryInfo(
        "Cpu", engine.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, engine.OrtMemType.DEFAULT
    )
    arena = engine.OrtArenaCfg({"arena_extend_strategy": SAME_AS_REQUESTED})
    try:
        engine.create_and_register_allocator(memory, arena)
    except RuntimeError as error:
        if ALREADY_THERE not in str(error):
            raise


def _open_on_cuda(engine: Any, path: Path, device: str, threads: int | None) -> BoundSession:
    from dim_runtime.backends.io_binding import bound_session

    # The CPU computes the operators that CUDA lacks.
    return bound_session(
        engine, device, lambda provider: _session(engine, path, [provider, CPU_PROVIDER], threads)
    )


def _tensors(nodes: list[Any]) -> dict[str, Tensor]:
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    return {node.name: Tensor(kinds.get(node.type, node.type), len(node.shape or ())) for node in nodes}


def _session(
    engine: Any, path: Path, providers: list[Any], threads: int | None, model: str | bytes | None = None
) -> Any:
    """Open a file, or a model that was made from it."""
    options = _options(engine, threads)
    if providers == [CPU_PROVIDER]:
        register_arena(engine)
        _use_arena(options)
    try:
        # Without enable_fallback=0 it prints to standard output and moves to the CPU where CUDA fails.
        return engine.InferenceSession(model or str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise ArtefactError(
            f"ONNX Runtime {engine.__version__} cannot load {path}",
            why=first_line(error),
            fix="copy or export the file again; if the operator set is newer than this release: "
            "pip install -U onnxruntime",
        ) from error


def _options(engine: Any, threads: int | None) -> Any:
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # A pattern is one block as large as all tensors of a run laid out ahead: it took 1.8 × the memory here.
    options.enable_mem_pattern = False
    return options


def _use_arena(options: Any) -> None:
    options.add_session_config_entry("session.use_env_allocators", "1")


def _identity_options(engine: Any) -> Any:
    options = engine.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    _use_arena(options)
    return options


def _require_own_precision(path: Path, metadata: ArtefactMetadata, precision: Precision | None) -> None:
    if precision not in (None, metadata.precision):
        raise BackendError(
            f"cannot run {path} in {precision}",
            got=f"an artefact in {metadata.precision}",
            why="ONNX Runtime computes in the precision that the graph has",
            fix=f"dim-export onnx CHECKPOINT -o MODEL.onnx --precision {precision}",
        )


def _require_runnable(path: Path, metadata: ArtefactMetadata) -> None:
    if metadata.precision == "bf16":
        raise BackendError(
            f"cannot run {path} with ONNX Runtime",
            got="a bf16 artefact",
            expected="fp32, fp16 or int8",
            why="ONNX Runtime lacks bf16 kernels: all of them on the CPU, Resize and Reciprocal on CUDA; "
            "OpenVINO and TensorRT have them",
            fix="dim-export onnx CHECKPOINT -o MODEL.onnx --precision fp32",
        )
