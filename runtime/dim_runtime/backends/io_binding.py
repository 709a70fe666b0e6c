"""ONNX Runtime on a GPU: CUDA's session, inputs and output bound to buffers of ``cuda.core`` on one stream.

No GPU has run this code yet. The tests bind buffers in host memory to ONNX Runtime's CPU provider, with the
same calls, and follow the options of the CUDA provider with a stand-in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA
from dim.errors import install_command
from dim_runtime.backends.base import require_windows
from dim_runtime.backends.cuda import Gpu, StagedWindows, explained, import_core
from dim_runtime.errors import DeviceError

CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_ADVICE = f"{install_command('gpu')}; dim-matte doctor --gpu shows what is missing"

Provider = tuple[str, dict[str, str]]
"""The name of an execution provider of ONNX Runtime, and its options."""


def bound_session(engine: Any, device: str, load: Callable[[Provider], Any]) -> BoundSession:
    """Open a session on a GPU, with buffers and a stream of ours.

    Args:
        engine: the module ``onnxruntime``.
        device: "cuda" or "cuda:N".
        load: opens the artefact with the given provider before any other; returns an ``InferenceSession``.

    Raises:
        DeviceError: the CPU build of ONNX Runtime, no such GPU, or CUDA's libraries do not load.
        MissingExtraError: cuda-core is not installed.
    """
    _require_cuda_build(engine, device)
    if hasattr(engine, "preload_dlls"):
        # CUDA and cuDNN of NVIDIA's wheels lie in site-packages, where the system's loader does not look.
        engine.preload_dlls()
    gpu = Gpu(import_core("gpu"), device)
    stream = gpu.new_stream()
    session = load((CUDA_PROVIDER, _cuda_options(gpu, stream)))
    if CUDA_PROVIDER not in session.get_providers():
        raise DeviceError(
            f"cannot use the device {device!r}",
            got=", ".join(session.get_providers()),
            expected=CUDA_PROVIDER,
            why="CUDA, cuDNN or the driver did not load",
            fix=f"--device cpu, or {CUDA_ADVICE}",
        )
    return BoundSession(gpu, stream, session)


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


def _require_cuda_build(engine: Any, device: str) -> None:
    if CUDA_PROVIDER not in engine.get_available_providers():
        raise DeviceError(
            f"cannot use the device {device!r}",
            got=f"ONNX Runtime {engine.__version__} with {', '.join(engine.get_available_providers())}",
            expected=CUDA_PROVIDER,
            why="the package onnxruntime is the CPU build",
            fix="--device cpu, or: pip uninstall onnxruntime && "
            'pip install "onnxruntime-gpu[cuda,cudnn]" cuda-core',
        )


def _cuda_options(gpu: Gpu, stream: Any) -> dict[str, str]:
    return {
        "device_id": str(gpu.number),
        # TF32 keeps 10 bits of the mantissa: not what "fp32" promises.
        "use_tf32": "0",
        # The default tries every algorithm of every convolution for each window shape, and there are many.
        "cudnn_conv_algo_search": "HEURISTIC",
        # The default doubles the arena with each extension, and window shapes vary.
        "arena_extend_strategy": "kSameAsRequested",
        # One stream orders the copies, the network and the producers of arrays on the GPU.
        "user_compute_stream": str(int(stream.handle)),
    }
