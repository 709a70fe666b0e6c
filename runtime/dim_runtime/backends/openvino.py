"""OpenVINO on the CPU: fp32, bf16 and int8 in the requested precision, never in a lower one.

Two properties of OpenVINO's CPU plug-in shape this file:

* It lowers float32 graphs to bf16 by itself where the processor has bf16. Therefore the precision is always
  set, and the result is read back from the compiled graph (:mod:`~dim_runtime.backends.openvino_precision`).
* A graph with free shapes takes three times the memory of a graph whose shape is known, because fewer
  operations are fused. Compiling for a shape takes as long as running 0.1 to 0.2 megapixels of the full-width
  network. Therefore small windows share one graph with free shapes, and each large shape has its own graph.
  Two shapes are compiled together if the next one is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import (
    INPUT_IMAGE,
    INPUT_TRIMAP,
    OUTPUT_ALPHA,
    REFINED,
    STRIDE,
    TRUST,
    ArtefactMetadata,
    Precision,
)
from dim.contract.cropping import NO_MARGINS, Margins, output_margins
from dim_runtime.artefacts.onnx_cut import crop_inputs, crop_limits, read_parts
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.artefacts.onnx_unsigned import with_unsigned_values
from dim_runtime.backends.base import (
    Backend,
    Estimate,
    WindowCall,
    first_line,
    inside,
    require_contract,
    require_single_windows,
    require_windows,
)
from dim_runtime.backends.openvino_cache import GraphCache
from dim_runtime.backends.openvino_graph import (
    configuration,
    fix_inputs,
    imported_engine,
    process_core,
    read_graph,
    tensors_of,
)
from dim_runtime.backends.openvino_memory import (
    KERNEL_CACHE,
    compiled_bytes,
    fixed_bytes,
    free_bytes,
    free_pixels,
    propagation_bytes,
    released_bytes,
)
from dim_runtime.backends.openvino_precision import Arithmetic, chosen_arithmetic, require_arithmetic
from dim_runtime.backends.openvino_streams import (
    FURTHER_BYTES,
    STREAMS,
    WORTHWHILE_MULTIPLY_ADDS,
    StreamGraphs,
    Turns,
    is_balanced,
    stream_options,
)
from dim_runtime.backends.openvino_unpooling import unpool_integers
from dim_runtime.backends.threads import EngineThreads
from dim_runtime.errors import BackendError, DeviceError

DEVICE = "CPU"
KEPT_GRAPHS = 2
"""Number of compiled graphs that are kept; each holds a copy of the weights."""
FREE_BYTES, FREE_INT8_BYTES = 470_000_000, 1_570_000_000
"""Bytes that a window may take in the graph with free shapes; for larger ones a graph is compiled. An int8
graph takes twice as long to compile, and half as long to run."""
QUICK_FREE_BYTES = 1_570_000_000
QUICK_MULTIPLY_ADDS = 1e11
"""Windows of at most this work run there too, up to the bytes above, because compiling would take longer."""
KEPT_SHARE = 0.5
"""Share that the graph with free shapes keeps of the memory of its largest window, at least."""


class OpenVinoBackend(Backend):
    """An ``.onnx`` artefact in OpenVINO, on the CPU.

    A large window of a new shape is compiled first: 0.2 to 0.6 seconds of one core, measured. Threads may
    share the back end; their windows run one after the other, each on all threads of the engine. Of plans
    with many small windows two run at one time (:mod:`~dim_runtime.backends.openvino_streams`).

    Args:
        path: the artefact.
        device: "cpu".
        precision: None for the artefact's own; "bf16" computes what is float32 in an fp32 or int8 artefact in
            bf16. fp16 artefacts are computed in float32 on processors without fp16.
        threads: of one window; None lets OpenVINO use one per physical core.
        free_pixels: windows of at most so many pixels share one graph with free shapes; a graph is compiled
            for the shape of larger ones. None for the value that was measured to be fastest.
        cache: folder in which compiled graphs with free shapes are kept for further processes; None for none.

    Raises:
        ArtefactError: missing, damaged, or not an artefact of this toolkit.
        MissingExtraError: OpenVINO is not installed.
        DeviceError: another device.
        BackendError: a precision that this artefact or this processor does not have.
        InputError: a cache that cannot be used, or that others may write to.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: Precision | None = None,
        threads: int | None = None,
        free_pixels: int | None = None,
        cache: Path | None = None,
    ) -> None:
        self._path = path
        self._metadata = read_metadata(path)
        require_single_windows(path, self._metadata)
        _require_cpu(device)
        self._arithmetic = chosen_arithmetic(path, self._metadata, precision)
        engine = imported_engine(path)
        self._core = process_core()
        self._config = configuration(self._arithmetic, threads)
        self._cache = None if cache is None else GraphCache(cache)
        self._graph_file: Path | bytes = path
        self._model: Any = None
        self._propagation: Any = None
        """Propagation alone, with free shapes, if it is a separate phase."""
        self._read(engine)
        self._free: Any = None
        """The graph with free shapes, once it was needed."""
        self._streams: StreamGraphs | None = None
        """The same for windows that run at one time."""
        self._cores = threads or psutil.cpu_count(logical=False) or 1
        self._at_once = 1
        """Calls of the present plan that run at one time."""
        self._compiled: OrderedDict[WindowCall, Any] = OrderedDict()
        self._free_pixels = (
            _usual_free_pixels(self._metadata, self._arithmetic) if free_pixels is None else free_pixels
        )
        self._expected: list[WindowCall] = []
        self._widest = 0
        """Pixels of the largest window that the graph with free shapes has run, since memory was released."""
        self._has_kernels = False
        """Whether that graph keeps kernels, which are never released."""
        self._turns = Turns()
        # Each thread that calls OpenVINO keeps memory.
        self._threads = EngineThreads(STREAMS)
        self._threads.run(0, self._warm_up)

    def _read(self, engine: Any) -> None:
        path = self._path
        self._metadata, network, propagation = read_parts(path, self._metadata)
        if self._metadata.precision == "int8":
            network = with_unsigned_values(network if isinstance(network, bytes) else network.read_bytes())
        self._graph_file = network
        self._model = last = read_graph(self._core, engine, path, network)
        if self._metadata.precision == "int8":
            unpool_integers(self._model)
        if propagation is not None:
            last = read_graph(self._core, engine, path, propagation)
            # Covariances need float32, whatever the network computes in.
            options = self._config | {"INFERENCE_PRECISION_HINT": "f32"}
            self._propagation = self._compile_or_load(last, propagation, options)
        limits = crop_inputs(self._metadata.network)
        own_inputs = [port for port in self._model.inputs if port.get_any_name() not in limits]
        require_contract(path, tensors_of(own_inputs), tensors_of(last.outputs))

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @property
    def crops(self) -> bool:
        return self._metadata.crops

    @property
    def phases(self) -> bool:
        return self._metadata.phases

    @property
    def compiled_shapes(self) -> tuple[WindowShape, ...]:
        """Shapes N, H, W of the compiled graphs that are kept, the one used last at the end."""
        return tuple(call.shape for call in self._compiled)

    def calls_at_once(self, shapes: Sequence[tuple[int, int]]) -> int:
        pixels = [prod(shape) for shape in shapes]
        most = min(self._free_pixels, free_pixels(self._metadata, self._arithmetic, FURTHER_BYTES))
        if self._cores < STREAMS or self._metadata.static_shape or max(pixels) > most:
            return 1
        enough = sum(pixels) * self._metadata.multiply_adds_per_pixel >= WORTHWHILE_MULTIPLY_ADDS
        return STREAMS if enough and is_balanced(pixels) else 1

    def expect(self, calls: Sequence[WindowCall], at_once: int = 1) -> None:
        with self._turns.alone():
            self._require_open()
            self._expected, self._at_once = list(calls), at_once
            if at_once > 1 and self._streams is None:
                options = self._config | stream_options(self._cores)
                with self._explained(max(call.shape for call in calls)):
                    self._streams = StreamGraphs(partial(self._compile_free, options))

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Compute the alpha of windows, float32 N, H, W in [0, 1]; arguments as in the base class.

        Raises:
            InputError: shapes that are not windows.
            BackendError: OpenVINO failed.
        """
        estimate = self._estimate(image, trimap, NO_MARGINS, NO_MARGINS)
        return self.propagate(image, trimap, estimate) if self.phases else estimate.alpha

    def run_core(
        self, image: UInt8, trimap: UInt8, margins: Margins, beyond: Margins = NO_MARGINS
    ) -> Estimate:
        if not self.crops:
            return super().run_core(image, trimap, margins, beyond)
        return self._estimate(image, trimap, margins, beyond)

    def propagate(self, image: UInt8, trimap: UInt8, estimate: Estimate) -> Floating:
        assert estimate.trust is not None, "an estimate of two phases has trust"
        planes = {REFINED: estimate.alpha[:, None], TRUST: estimate.trust[:, None]}
        inputs = {INPUT_IMAGE: image, INPUT_TRIMAP: trimap} | planes
        with self._explained(trimap.shape):
            return self._threads.run(trimap.size, partial(self._propagate, inputs))

    def _propagate(self, inputs: dict[str, Any]) -> Floating:
        with self._turns.alone():
            self._require_open()
            found = self._propagation.create_infer_request().infer(inputs, share_inputs=True)
            # A copy: the request's tensor goes with its memory.
            alpha: Floating = found[OUTPUT_ALPHA].copy()
            del found
            if not self._is_small(WindowCall(inputs[INPUT_TRIMAP].shape)):
                self._propagation.release_memory()
            return alpha

    @contextmanager
    def _explained(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Raise every error of OpenVINO as one of ours."""
        try:
            yield
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO failed while running {self._path}",
                got=f"{shape[0]} windows of {shape[2]}×{shape[1]} px",
                why=first_line(error),
                fix="if memory ran out: a smaller tile (--tile), or --memory-limit",
            ) from error

    def _estimate(self, image: UInt8, trimap: UInt8, margins: Margins, beyond: Margins) -> Estimate:
        require_windows(image.shape, trimap.shape)
        count, height, width = trimap.shape
        with self._explained(trimap.shape):
            call = WindowCall((count, height, width), margins)
            inputs = {INPUT_IMAGE: image, INPUT_TRIMAP: trimap}
            found: Estimate = self._threads.run(trimap.size, partial(self._run, call, inputs))
        if not self.crops:
            return found
        dropped = output_margins(self._metadata.network, margins).less(beyond)
        return Estimate(*(inside(planes, dropped) for planes in found if planes is not None))

    def _warm_up(self) -> None:
        """Compile and run once, so that errors are raised at once and the weights are in place."""
        shape = self._metadata.static_shape or (1, STRIDE, STRIDE)
        call = WindowCall(shape)
        require_arithmetic(self._path, self._graph(call), self._arithmetic)
        self._run(
            call, {INPUT_IMAGE: np.zeros((*shape, 3), np.uint8), INPUT_TRIMAP: np.zeros(shape, np.uint8)}
        )

    def _run(self, call: WindowCall, inputs: dict[str, Any]) -> Estimate:
        if self._is_small(call) and self.crops:
            inputs = inputs | crop_limits(self._metadata.network, call.margins)
        if self._is_small(call) and self._at_once > 1 and self._streams is not None:
            with self._turns.beside_others():
                self._require_open()
                with self._streams.taken(prod(call.shape)) as graph:
                    return self._infer(graph, call, inputs)
        with self._turns.alone():
            self._require_open()
            return self._run_alone(call, inputs)

    def _run_alone(self, call: WindowCall, inputs: dict[str, Any]) -> Estimate:
        if call in self._expected:
            self._expected.remove(call)
        compiled = self._graph(call)
        found = self._infer(compiled, call, inputs)
        if self._is_small(call):
            # The first window is the warm-up's, whose kernels are few.
            self._has_kernels = self._has_kernels or self._widest > 0
            self._widest = max(self._widest, prod(call.shape))
        else:
            # The window's tensors are released, so that one window bounds the memory, not one of each shape.
            # With free shapes OpenVINO releases only a part, and allocates it again with the next window.
            compiled.release_memory()
        return found

    def _require_open(self) -> None:
        if self._model is None:
            raise BackendError(f"cannot run {self._path}: it was closed", fix="close it after the last call")

    def _infer(self, compiled: Any, call: WindowCall, inputs: dict[str, Any]) -> Estimate:
        outputs = [REFINED, TRUST] if self.phases else [OUTPUT_ALPHA]
        found = compiled.create_infer_request().infer(inputs, share_inputs=True)
        return Estimate(*(found[name].reshape(call.shape[0], *found[name].shape[-2:]) for name in outputs))

    def _is_small(self, call: WindowCall) -> bool:
        """Return whether the windows of a call run in the graph with free shapes."""
        return self._metadata.static_shape is None and prod(call.shape) <= self._free_pixels

    def _graph(self, call: WindowCall) -> Any:
        if self._is_small(call):
            self._free = self._free or self._compile_free(self._config)
            return self._free
        if call not in self._compiled:
            self._compile_with_expected(call)
        self._compiled.move_to_end(call)
        return self._compiled[call]

    def _compile_with_expected(self, call: WindowCall) -> None:
        """Compile for a call, and for those that follow it, as many as are kept."""
        large = [following for following in self._expected if not self._is_small(following)]
        missing = [each for each in dict.fromkeys([call, *large]) if each not in self._compiled]
        chosen = missing[:KEPT_GRAPHS]
        while len(self._compiled) > KEPT_GRAPHS - len(chosen):
            self._compiled.popitem(last=False)
        # OpenVINO compiles on one core.
        with ThreadPoolExecutor(len(chosen)) as pool:
            self._compiled.update(zip(chosen, pool.map(self._compile, chosen), strict=True))

    def _compile(self, call: WindowCall) -> Any:
        """Compile the graph for the windows of a call."""
        model = self._model.clone()
        if self.crops:
            fix_inputs(model, crop_limits(self._metadata.network, call.margins))
        model.reshape({INPUT_IMAGE: [*call.shape, 3], INPUT_TRIMAP: list(call.shape)})
        return self._core.compile_model(model, DEVICE, self._config)

    def _compile_free(self, options: dict[str, Any]) -> Any:
        """Compile the graph with free shapes."""
        return self._compile_or_load(self._model.clone(), self._graph_file, options)

    def _compile_or_load(self, model: Any, graph: Path | bytes, options: dict[str, Any]) -> Any:
        """Compile a graph with free shapes, or take it from the cache."""
        if self._cache is None:
            return self._core.compile_model(model, DEVICE, options)
        return self._cache.compile(self._core, model, graph, DEVICE, options)

    def window_bytes(self, height: int, width: int) -> int:
        """Return an upper bound of the memory of :meth:`run` for one window, compiling included; bytes."""
        return self.peak_bytes([(height, width)])

    def peak_bytes(self, shapes: Iterable[tuple[int, int]]) -> int:
        """Return an upper bound; the graph with free shapes keeps its tensors while others run."""
        what = self._metadata, self._arithmetic
        pixels = [prod(shape) for shape in shapes]
        if self._metadata.static_shape is not None:
            return fixed_bytes(*what, max(pixels, default=0))
        # 1. Small windows share the graph with free shapes; large windows run in compiled graphs.
        small = max((count for count in pixels if count <= self._free_pixels), default=0)
        large = max((count for count in pixels if count > self._free_pixels), default=0)
        # 2. Graphs that are still to be compiled; one may exist for a moment beside all that are kept.
        room = max(KEPT_GRAPHS - len(self._compiled), 1) * compiled_bytes(*what)
        # 3. Tensors that earlier small windows left in the graph with free shapes are resident already.
        held = max(
            self._kept_bytes(self._widest), round(KEPT_SHARE * KERNEL_CACHE) if self._has_kernels else 0
        )
        free = max(free_bytes(*what, small) - held, 0) if small else 0
        # 4. The graph with free shapes keeps its tensors while a compiled graph runs, so both are added.
        if not self.phases:
            return free + (fixed_bytes(*what, large) + room if large else 0)
        # 5. Propagation follows in a separate graph, which keeps the tensors of small windows. Of large ones
        #    each graph keeps a part while the other runs.
        most = max(fixed_bytes(*what, large), propagation_bytes(large)) + released_bytes(large)
        return free + propagation_bytes(small) + (most + room if large else 0)

    def further_bytes(self, height: int, width: int) -> int:
        what = self._metadata, self._arithmetic
        # The graph for one window at a time keeps its tensors while the streams run.
        needed = free_bytes(*what, height * width) + self._kept_bytes(self._widest)
        if self._streams is None:
            return needed + STREAMS * compiled_bytes(*what)
        return max(needed - STREAMS * self._kept_bytes(self._streams.widest), 0)

    def _kept_bytes(self, pixels: int) -> int:
        """Return what a graph with free shapes keeps, at least, after a window of so many pixels."""
        return round(KEPT_SHARE * free_bytes(self._metadata, self._arithmetic, pixels)) if pixels else 0

    def release_memory(self) -> None:
        with self._turns.alone():
            for graph in (self._free, self._propagation):
                if graph is not None:
                    graph.release_memory()
            self._widest = 0
            if self._streams is not None:
                self._streams.release_memory()

    def close(self) -> None:
        """Free the engine. Closing twice is fine."""
        with self._turns.alone():
            self._compiled.clear()
            self._free = self._streams = self._model = self._propagation = None


def _usual_free_pixels(metadata: ArtefactMetadata, arithmetic: Arithmetic) -> int:
    """Return the pixels of the largest window that runs in the graph with free shapes."""
    quick = min(
        free_pixels(metadata, arithmetic, QUICK_FREE_BYTES),
        int(QUICK_MULTIPLY_ADDS / metadata.multiply_adds_per_pixel),
    )
    limit = FREE_INT8_BYTES if arithmetic.precision == "int8" else FREE_BYTES
    return max(free_pixels(metadata, arithmetic, limit), quick)


def _require_cpu(device: str) -> None:
    if device != "cpu":
        raise DeviceError(
            f"cannot use the device {device!r} with OpenVINO",
            expected='"cpu"',
            why="this back end runs on the CPU only",
            fix='device="cpu" (--device cpu), or backend="onnxruntime" (--backend onnxruntime)',
        )
