"""One execution context with its stream and buffers: all that one batch of windows needs.

No GPU has run this code yet; the tests run it with stand-ins for TensorRT and ``cuda.core``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP
from dim_runtime.backends.cuda import BYTES_PER_PIXEL, Gpu, StagedWindows, explained
from dim_runtime.errors import BackendError

CAPTURE_MODE = "thread_local"
"""Only unsafe calls of the capturing thread are refused while it records; other threads continue."""


class Slot:
    """Runs batches one after the other; used by one thread at a time.

    Args:
        gpu: current in the calling thread.
        context: a TensorRT execution context, which the slot owns from now on.
        graphs: record the launch when a shape comes for the second time in a row, and replay it afterwards.
    """

    def __init__(self, gpu: Gpu, context: Any, graphs: bool) -> None:
        self._gpu, self._context, self._graphs = gpu, context, graphs
        self._stream = gpu.new_stream()
        self._windows = StagedWindows(gpu, self._stream)
        self._shape: WindowShape | None = None
        self._graph: Any = None
        self._warm = False
        """Whether this shape has run once: TensorRT finishes its own preparations in the first run."""

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Return alpha, float32 N, H, W, of image uint8 N, H, W, 3 and trimap uint8 N, H, W.

        Raises:
            BackendError: CUDA or TensorRT refused a call.
        """
        count, height, width = trimap.shape
        self._prepare((count, height, width))
        self._windows.fill(image, trimap)
        self._launch()
        self._synchronise()
        return self._windows.alpha()

    def view(self, array: Any, name: str) -> Any:
        """Return a view of an array on the GPU that is complete for this slot's stream; see `Gpu.view`."""
        return self._gpu.view(array, name, self._stream)

    def run_on_device(self, image: int, trimap: int, shape: WindowShape) -> Any:
        """Run from addresses on the GPU and return a new array of alpha there, complete.

        Raises:
            BackendError: CUDA or TensorRT refused a call.
        """
        alpha = self._gpu.new_alpha(shape, self._stream)
        self._set_shape(shape)
        # These addresses belong to this run only: the next run must set its own.
        self._shape = None
        for name, address in zip(BYTES_PER_PIXEL, (image, trimap, alpha.ptr), strict=True):
            _require(self._context.set_tensor_address(name, address), "set_tensor_address")
        self._execute()
        self._synchronise()
        return alpha

    def close(self) -> None:
        """Release everything, also after a failed run; the first error is raised after all was tried."""
        self._context = None
        errors: list[BackendError] = []
        steps: list[Callable[[], None]] = [self._drop_graph, self._windows.close, self._close_stream]
        for step in steps:
            try:
                step()
            except BackendError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _prepare(self, shape: WindowShape) -> None:
        """Set shapes first and addresses next: TensorRT requires both before it runs."""
        if shape == self._shape:
            return
        self._set_shape(shape)
        try:
            self._windows.reserve(shape)
            for name, address in self._windows.addresses.items():
                _require(self._context.set_tensor_address(name, address), "set_tensor_address")
        except BackendError:
            self._shape = None
            raise

    def _set_shape(self, shape: WindowShape) -> None:
        self._drop_graph()
        self._shape, self._warm = None, False
        _require(self._context.set_input_shape(INPUT_IMAGE, (*shape, 3)), "set_input_shape")
        _require(self._context.set_input_shape(INPUT_TRIMAP, shape), "set_input_shape")
        self._shape = shape

    def _launch(self) -> None:
        if self._graphs and self._warm and self._graph is None:
            self._graph = self._recorded()
        if self._graph is not None:
            with explained("launch a CUDA graph"):
                self._graph.launch(self._stream)
        else:
            self._enqueue(self._stream)
        self._warm = True

    def _recorded(self) -> Any:
        """Record copies and kernels as a graph; it is valid for this shape and these addresses only."""
        with explained("record a CUDA graph"):
            builder = self._stream.create_graph_builder()
            try:
                builder.begin_building(CAPTURE_MODE)
                self._enqueue(builder)
                return builder.end_building().complete()
            finally:
                # Also ends a recording that failed, so that the stream can run again.
                builder.close()

    def _enqueue(self, stream: Any) -> None:
        self._windows.upload(stream)
        self._execute()
        self._windows.download(stream)

    def _execute(self) -> None:
        _require(self._context.execute_async_v3(int(self._stream.handle)), "execute_async_v3")

    def _synchronise(self) -> None:
        with explained("wait for the stream"):
            self._stream.sync()

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            with explained("release a CUDA graph"):
                graph.close()

    def _close_stream(self) -> None:
        with explained("release a stream"):
            self._stream.close()


def _require(accepted: object, call: str) -> None:
    """Raise BackendError where TensorRT returned False, which is how it refuses a call."""
    if accepted is False:
        raise BackendError(
            "TensorRT refused a call",
            got=call,
            why="the shape is outside the engine's profile, or the GPU's memory is full",
            fix="a smaller tile, or an engine for smaller windows: dim-export trt MODEL.onnx --tile N",
        )
