"""One execution context with its stream and buffers: what one window needs to pass through an engine.

Never executed on a GPU so far: the order of the calls is tested with a fake engine and a fake CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA
from dim_runtime.backends.cuda import Buffer, Cuda
from dim_runtime.errors import BackendError

BYTES_PER_PIXEL = {INPUT_IMAGE: 3, INPUT_TRIMAP: 1, OUTPUT_ALPHA: 4}


class Lane:
    """Runs windows one after the other; used by one thread at a time.

    Args:
        cuda: the GPU, already the calling thread's.
        context: a TensorRT execution context, which the lane owns from now on.
        graphs: record the launch when a shape comes for the second time in a row, and replay it from then on.
    """

    def __init__(self, cuda: Cuda, context: Any, graphs: bool) -> None:
        self._cuda, self._context, self._graphs = cuda, context, graphs
        self._stream = cuda.new_stream()
        self._buffers = {name: Buffer(cuda) for name in BYTES_PER_PIXEL}
        self._shape: WindowShape | None = None
        self._graph: Any = None
        self._warm = False
        """Whether this shape was run once: TensorRT finishes its own preparations in the first run."""

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Alpha, float32 N, H, W, of image uint8 N, H, W, 3 and trimap uint8 N, H, W.

        Raises:
            BackendError: CUDA or TensorRT refused a call.
        """
        count, height, width = trimap.shape
        self._prepare((count, height, width))
        self._fill(INPUT_IMAGE, image)
        self._fill(INPUT_TRIMAP, trimap)
        self._launch()
        self._cuda.synchronise(self._stream)
        alpha = self._buffers[OUTPUT_ALPHA].view(self._size(OUTPUT_ALPHA)).view(np.float32)
        # Copied: the buffer is the next window's.
        return alpha.reshape(trimap.shape).copy()

    def run_on_device(self, image: int, trimap: int, alpha: int, shape: WindowShape) -> None:
        """As :meth:`run`, from and to addresses on the GPU; returns when the alpha is complete.

        Raises:
            BackendError: CUDA or TensorRT refused a call.
        """
        self._set_shape(shape)
        # The addresses of this run are not the next one's, whatever happens.
        self._shape = None
        for name, address in zip(BYTES_PER_PIXEL, (image, trimap, alpha), strict=True):
            _must(self._context.set_tensor_address(name, address), "set_tensor_address")
        self._execute()
        self._cuda.synchronise(self._stream)

    def close(self) -> None:
        """Free everything, also after a failed run; the first error is raised when all has been tried."""
        self._context = None
        errors: list[BackendError] = []
        steps: list[Callable[[], None]] = [self._drop_graph]
        steps += [buffer.free for buffer in self._buffers.values()]
        steps.append(partial(self._cuda.destroy_stream, self._stream))
        for step in steps:
            try:
                step()
            except BackendError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _prepare(self, shape: WindowShape) -> None:
        """Shapes first, addresses next: TensorRT wants both before it runs."""
        if shape == self._shape:
            return
        self._set_shape(shape)
        try:
            self._bind()
        except BackendError:
            self._shape = None
            raise

    def _set_shape(self, shape: WindowShape) -> None:
        self._drop_graph()
        self._shape, self._warm = None, False
        _must(self._context.set_input_shape(INPUT_IMAGE, (*shape, 3)), "set_input_shape")
        _must(self._context.set_input_shape(INPUT_TRIMAP, shape), "set_input_shape")
        self._shape = shape

    def _bind(self) -> None:
        for name, buffer in self._buffers.items():
            buffer.reserve(self._size(name))
            _must(self._context.set_tensor_address(name, buffer.device), "set_tensor_address")

    def _size(self, name: str) -> int:
        """Bytes of a tensor in the present shape."""
        if self._shape is None:
            raise BackendError("a lane was used before it had a shape")
        count, height, width = self._shape
        return BYTES_PER_PIXEL[name] * count * height * width

    def _fill(self, name: str, values: UInt8) -> None:
        view = self._buffers[name].view(self._size(name))
        np.copyto(view.reshape(values.shape), values)

    def _launch(self) -> None:
        if self._graphs and self._warm and self._graph is None:
            self._graph = self._recorded()
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue()
        self._warm = True

    def _recorded(self) -> Any:
        """A graph of copies and kernels; it holds for this shape and these addresses only."""
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
        except BackendError:
            self._cuda.abandon_capture(self._stream)
            raise
        return self._cuda.end_capture(self._stream)

    def _enqueue(self) -> None:
        for name in (INPUT_IMAGE, INPUT_TRIMAP):
            self._buffers[name].upload(self._size(name), self._stream)
        self._execute()
        self._buffers[OUTPUT_ALPHA].download(self._size(OUTPUT_ALPHA), self._stream)

    def _execute(self) -> None:
        _must(self._context.execute_async_v3(int(self._stream)), "execute_async_v3")

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            self._cuda.destroy_graph(graph)


def _must(answer: object, call: str) -> None:
    """TensorRT answers False where it refuses a call."""
    if answer is False:
        raise BackendError(
            "TensorRT refused a call",
            got=call,
            why="the shape is outside the engine's profile, or the GPU's memory is full",
            fix="a smaller tile, or an engine for smaller windows: dim-export trt MODEL.onnx --tile N",
        )
