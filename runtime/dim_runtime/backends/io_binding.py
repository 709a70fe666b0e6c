"""ONNX Runtime on a GPU: inputs and output bound to buffers of ``cuda.core`` on one stream.

No GPU has run this code yet. The tests bind buffers in host memory to ONNX Runtime's CPU provider, with the
same calls, and follow the options of the CUDA provider with a stand-in.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA
from dim_runtime.backends.base import require_windows
from dim_runtime.backends.cuda import Gpu, StagedWindows, explained


class BoundSession:
    """Runs a session on one GPU. Threads may share it; their windows run one after the other.

    Args:
        gpu: the GPU of the session.
        stream: the session's compute stream (its option ``user_compute_stream``).
        session: an open ``InferenceSession``.
        kind: where the bound addresses are: "cuda", or "cpu" in tests.
    """

    def __init__(self, gpu: Gpu, stream: Any, session: Any, *, kind: str = "cuda") -> None:
        self._gpu, self._stream, self._session = gpu, stream, session
        self._place = kind, gpu.number
        self._windows = StagedWindows(gpu, stream)
        self._lock = threading.Lock()

    def run(self, image: UInt8, trimap: UInt8, options: Any = None) -> Floating:
        """Return alpha of a batch in host memory; shapes as in :meth:`Backend.run`."""
        count, height, width = trimap.shape
        require_windows(image.shape, trimap.shape)
        with self._lock:
            self._gpu.use()
            self._windows.reserve((count, height, width))
            self._windows.fill(image, trimap)
            self._windows.upload(self._stream)
            self._run(self._windows.addresses, (count, height, width), options)
            self._windows.download(self._stream)
            self._synchronise()
            return self._windows.alpha()

    def run_on_device(self, image: Any, trimap: Any, options: Any = None) -> Any:
        """Return alpha of a batch that lies on the GPU; see :meth:`Backend.run_on_device`."""
        with self._lock:
            self._gpu.use()
            # The producers make our stream wait until the arrays are complete.
            colours = self._gpu.view(image, "image", self._stream)
            unknowns = self._gpu.view(trimap, "trimap", self._stream)
            require_windows(tuple(colours.shape), tuple(unknowns.shape))
            count, height, width = unknowns.shape
            shape = count, height, width
            # A new buffer for each result: it is the caller's from now on.
            alpha = self._gpu.new_alpha(shape, self._stream)
            addresses = {INPUT_IMAGE: colours.ptr, INPUT_TRIMAP: unknowns.ptr, OUTPUT_ALPHA: alpha.ptr}
            self._run(addresses, shape, options)
            self._synchronise()
            return alpha

    def close(self) -> None:
        """Wait for the window in flight and release session, buffers and stream. Closing twice is fine."""
        with self._lock:
            if self._session is None:
                return
            self._session = None
            self._gpu.use()
            self._windows.close()
            with explained("release a stream"):
                self._stream.close()

    def _run(self, addresses: dict[str, int], shape: WindowShape, options: Any) -> None:
        binding = self._session.io_binding()
        kind, number = self._place
        image, trimap, alpha = (addresses[name] for name in (INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA))
        binding.bind_input(INPUT_IMAGE, kind, number, np.uint8, (*shape, 3), image)
        binding.bind_input(INPUT_TRIMAP, kind, number, np.uint8, shape, trimap)
        binding.bind_output(OUTPUT_ALPHA, kind, number, np.float32, shape, alpha)
        self._session.run_with_iobinding(binding, options)

    def _synchronise(self) -> None:
        with explained("wait for the stream"):
            self._stream.sync()
