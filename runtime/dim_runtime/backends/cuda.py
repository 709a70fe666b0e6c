"""CUDA through cuda-python: devices, streams, memory and graphs, without torch.

Never executed on a GPU so far: the order of the calls is tested with a fake runtime, and what a machine
without a driver answers with the real one.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from dim.arrays import UInt8
from dim_runtime.errors import BackendError, DeviceError, MissingExtraError


def cuda_runtime(extra: str) -> Any:
    """The module ``cuda.bindings.runtime``; MissingExtraError naming ``extra`` if it is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingExtraError("reach an NVIDIA GPU", package="cuda-python", extra=extra) from error
    return runtime


def device_number(device: str) -> int:
    """``"cuda"`` -> 0, ``"cuda:N"`` -> N; DeviceError for anything else."""
    name, colon, number = device.partition(":")
    if name != "cuda" or (colon and not (number.isascii() and number.isdecimal())):
        raise DeviceError(
            "cannot use this device for a TensorRT engine",
            got=repr(device),
            expected='"cuda" or "cuda:N"',
            why="engines run on NVIDIA GPUs only",
            fix='device="cuda" (--device cuda), or an .onnx artefact for the CPU',
        )
    return int(number or 0)


class Cuda:
    """One GPU. Every call that CUDA refuses becomes a :class:`BackendError`.

    Args:
        runtime: the module ``cuda.bindings.runtime``, or something that behaves like it.
        device: "cuda" or "cuda:N".

    Raises:
        DeviceError: not such a name, no driver, no such GPU.
    """

    def __init__(self, runtime: Any, device: str = "cuda") -> None:
        self._runtime = runtime
        self.number = device_number(device)
        self._require_device(device)

    def use(self) -> None:
        """Make this GPU the calling thread's; CUDA keeps that choice per thread."""
        self._call("cudaSetDevice", self.number)

    def compute_capability(self) -> str:
        """Such as "8.6"."""
        attributes = self._runtime.cudaDeviceAttr
        major = self._call(
            "cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, self.number
        )
        minor = self._call(
            "cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, self.number
        )
        return f"{int(major)}.{int(minor)}"

    def new_stream(self) -> Any:
        """A stream that does not wait for the default stream, which TensorRT advises against."""
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def synchronise(self, stream: Any) -> None:
        """Wait for everything on the stream."""
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes on the GPU."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_host(self, size: int) -> int:
        """Address of ``size`` bytes of page-locked host memory, which the GPU reads by itself."""
        return int(self._call("cudaMallocHost", size))

    def free_host(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def copy_to_device(self, target: int, source: int, size: int, stream: Any) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: Any) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        """What this thread puts on the stream from now on is recorded, not run."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """The recording, ready to be launched."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def abandon_capture(self, stream: Any) -> None:
        """End a recording that failed, so that the stream runs again; what it holds is dropped."""
        status, *graphs = self._runtime.cudaStreamEndCapture(stream)
        if int(status) == 0 and graphs:
            self._runtime.cudaGraphDestroy(graphs[0])

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _require_device(self, device: str) -> None:
        try:
            count = int(self._call("cudaGetDeviceCount"))
        except BackendError as error:
            raise DeviceError(
                f"cannot use the device {device!r}",
                got="no NVIDIA GPU that CUDA can reach",
                why=error.why,
                fix="an .onnx artefact on the CPU, or NVIDIA's driver, which nvidia-smi shows",
            ) from error
        if self.number >= count:
            raise DeviceError(
                f"cannot use the device {device!r}",
                got=f"{count} NVIDIA GPUs",
                expected=", ".join(f"cuda:{number}" for number in range(count)) or "at least one",
            )

    def _call(self, name: str, *arguments: Any) -> Any:
        """The value that a CUDA function returns beside its status, if any."""
        status, *values = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            raise BackendError(
                "the GPU refused a request",
                got=f"{name}: {getattr(status, 'name', int(status))}",
                why=self._explain(status),
                fix="if memory ran out: a smaller tile, fewer threads at once, or another GPU (cuda:N)",
            )
        return values[0] if values else None

    def _explain(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)


class Buffer:
    """The same bytes in page-locked host memory and on the GPU; kept for the next window, they only grow."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._capacity = self._host = 0
        self.device = 0
        """Address on the GPU; it changes only when the buffer grows."""

    def reserve(self, size: int) -> None:
        """Room for ``size`` bytes; what the buffer held is lost if it must grow."""
        if size <= self._capacity:
            return
        self.free()
        self.device = self._cuda.allocate(size)
        self._host = self._cuda.allocate_host(size)
        self._capacity = size

    def view(self, size: int) -> UInt8:
        """The first ``size`` bytes of the host side, not copied."""
        memory = (ctypes.c_uint8 * size).from_address(self._host)
        view: UInt8 = np.ctypeslib.as_array(memory)
        return view

    def upload(self, size: int, stream: Any) -> None:
        self._cuda.copy_to_device(self.device, self._host, size, stream)

    def download(self, size: int, stream: Any) -> None:
        self._cuda.copy_to_host(self._host, self.device, size, stream)

    def free(self) -> None:
        """Give both sides back. Freeing twice is fine."""
        device, host = self.device, self._host
        self.device = self._host = self._capacity = 0
        if device:
            self._cuda.free(device)
        if host:
            self._cuda.free_host(host)
