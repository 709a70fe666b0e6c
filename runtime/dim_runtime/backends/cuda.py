"""NVIDIA GPUs through cuda.core: devices, streams, memory and arrays of other libraries, without torch.

No GPU has run this code yet. The tests run it with a stand-in for ``cuda.core`` that has real addresses, and
compare every call with the signatures of the installed package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA
from dim.errors import InputError
from dim_runtime.backends.base import first_line
from dim_runtime.backends.device import require_cuda
from dim_runtime.errors import BackendError, DeviceError, DimError, MissingExtraError

DLPACK_CUDA = 2
"""DLPack's number for memory of an NVIDIA GPU (kDLCUDA)."""
DRIVER_ADVICE = (
    "an .onnx artefact on the CPU, or NVIDIA's driver, which nvidia-smi shows: CUDA 13 needs release 580 or "
    'later; for an older driver: pip install "cuda-bindings<13" "onnxruntime-gpu<1.27"'
)
MEMORY_ADVICE = "if memory ran out: a smaller tile, fewer threads at once, or another GPU (cuda:N)"
BYTES_PER_PIXEL = {INPUT_IMAGE: 3, INPUT_TRIMAP: 1, OUTPUT_ALPHA: 4}
"""uint8 RGB, uint8 trimap, float32 alpha."""
HOST_BYTES_PER_PIXEL = sum(BYTES_PER_PIXEL.values()) + BYTES_PER_PIXEL[OUTPUT_ALPHA]
"""Page-locked image, trimap and alpha, and the alpha that is returned."""


def import_core(extra: str) -> Any:
    """Import ``cuda.core``; MissingExtraError naming ``extra`` if it is not installed."""
    try:
        import cuda.core
    except ImportError as error:
        raise MissingExtraError(
            "reach an NVIDIA GPU", package="cuda-core", extra=extra, cause=error
        ) from error
    return cuda.core


class Gpu:
    """One GPU.

    Args:
        core: the module ``cuda.core``, or a stand-in.
        name: "cuda" or "cuda:N".

    Raises:
        DeviceError: another name, no driver, or no such GPU.
    """

    def __init__(self, core: Any, name: str = "cuda") -> None:
        self._core = core
        self.number = require_cuda(name).number
        """Index of the GPU in CUDA's order."""
        self._device = self._find(name)
        self.use()
        with explained("the page-locked memory"):
            self._pinned = core.LegacyPinnedMemoryResource()

    @property
    def name(self) -> str:
        """NVIDIA's name of the model."""
        return str(self._device.name)

    @property
    def capability(self) -> str:
        """Compute capability, such as "8.6"."""
        with explained("the compute capability"):
            major, minor = self._device.compute_capability
        return f"{major}.{minor}"

    def use(self) -> None:
        """Make this GPU current for the calling thread; CUDA keeps that choice per thread."""
        with explained("set_current"):
            self._device.set_current()

    def new_stream(self) -> Any:
        """Return a new stream that does not wait for the default stream, as TensorRT recommends."""
        with explained("create_stream"):
            return self._device.create_stream()

    def allocate(self, size: int, stream: Any) -> Any:
        """Return a buffer of ``size`` bytes on the GPU; allocation and release are ordered by ``stream``."""
        with explained(f"allocate {size} bytes on the GPU"):
            return self._device.allocate(size, stream=stream)

    def allocate_host(self, size: int) -> Any:
        """Return a buffer of ``size`` bytes of page-locked host memory, which the GPU reads directly."""
        with explained(f"allocate {size} bytes of page-locked memory"):
            return self._pinned.allocate(size)

    def part(self, buffer: Any, size: int) -> Any:
        """Return the first ``size`` bytes of a buffer as a buffer that owns nothing but keeps it alive."""
        return self.borrow(int(buffer.handle), size, buffer)

    def borrow(self, address: int, size: int, owner: Any) -> Any:
        """Return ``size`` bytes at an address as a buffer that keeps their owner alive."""
        with explained("from_handle"):
            return self._core.Buffer.from_handle(address, size, owner=owner)

    def new_alpha(self, shape: WindowShape, stream: Any) -> Any:
        """Return a new float32 array N, H, W on the GPU, for work on ``stream``; it supports DLPack.

        Its memory is released on the default stream when its last user drops it: after all work that the
        user has put there.
        """
        default = self._device.default_stream
        buffer = self.allocate(BYTES_PER_PIXEL[OUTPUT_ALPHA] * prod(shape), default)
        with explained("wait for the default stream"):
            stream.wait(default)
        return self.as_array(buffer, shape, np.dtype(np.float32))

    def as_array(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return a C-contiguous array that owns a buffer and supports DLPack."""
        with explained("from_buffer"):
            return self._core.utils.StridedMemoryView.from_buffer(buffer, shape, dtype=dtype)

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free, for all processes together; bytes.

        Raises:
            BackendError: CUDA does not report it.
        """
        self.use()
        with explained("cuMemGetInfo"):
            from cuda.bindings import driver

            status, free, _ = driver.cuMemGetInfo()
        if int(status) != 0:
            raise BackendError("cannot read the free memory of the GPU", got=status.name)
        return int(free)

    def view(self, array: Any, name: str, stream: Any) -> Any:
        """Return a view of a contiguous uint8 array on this GPU; nothing is copied.

        Args:
            array: supports DLPack; its producer makes ``stream`` wait until it is complete.
            name: for messages.

        Returns:
            A view with ``ptr`` and ``shape``; the array is its owner's again when the view is dropped.

        Raises:
            InputError: another device, dtype or layout, or no DLPack.
        """
        require_place(array, name, (DLPACK_CUDA, self.number))
        try:
            view = self._core.utils.StridedMemoryView.from_dlpack(array, stream_ptr=int(stream.handle))
            dtype, strides = view.dtype, view.strides
        except Exception as error:  # code of the array's library
            raise InputError(
                f"cannot use this {name}", why=first_line(error), expected="a contiguous uint8 array"
            ) from error
        if dtype != np.uint8:
            raise InputError(f"cannot use this {name}", got=dtype, expected="uint8")
        if strides is not None and not _is_contiguous(tuple(view.shape), tuple(strides)):
            raise InputError(f"cannot use this {name}", got="a strided array", expected="a contiguous one")
        return view

    def _find(self, name: str) -> Any:
        try:
            devices = self._core.Device.get_all_devices()
        except Exception as error:  # cuda.core has no public class for CUDA's errors
            raise DeviceError(
                f"cannot use the device {name!r}",
                got="no NVIDIA GPU that CUDA can reach",
                why=first_line(error),
                fix=DRIVER_ADVICE,
            ) from error
        if self.number >= len(devices):
            raise DeviceError(
                f"cannot use the device {name!r}",
                got=f"{len(devices)} NVIDIA GPUs",
                expected=", ".join(f"cuda:{number}" for number in range(len(devices))) or "at least one",
                fix=None if devices else DRIVER_ADVICE,
            )
        return devices[self.number]


class StagedWindows:
    """Image, trimap and alpha of one batch in page-locked host memory and on the GPU.

    Used by one thread at a time. Buffers are kept for the next batch and only grow.

    Args:
        gpu: current in the calling thread.
        stream: orders every copy, allocation and release.
    """

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        self._tensors = {name: _StagedTensor(gpu, stream) for name in BYTES_PER_PIXEL}
        self._shape: WindowShape | None = None

    @property
    def addresses(self) -> dict[str, int]:
        """Addresses on the GPU by the tensor's name; only a growing :meth:`reserve` changes them."""
        return {name: tensor.address for name, tensor in self._tensors.items()}

    def reserve(self, shape: WindowShape) -> None:
        """Make room for a batch N, H, W; what the buffers held is lost where they grow."""
        for name, tensor in self._tensors.items():
            tensor.reserve(BYTES_PER_PIXEL[name] * prod(shape))
        self._shape = shape

    def fill(self, image: UInt8, trimap: UInt8) -> None:
        """Copy a batch of the reserved shape into the page-locked memory."""
        for name, values in ((INPUT_IMAGE, image), (INPUT_TRIMAP, trimap)):
            np.copyto(self._tensors[name].host.reshape(values.shape), values)

    def upload(self, stream: Any) -> None:
        """Queue the copies of image and trimap to the GPU on a stream or a graph builder."""
        for name in (INPUT_IMAGE, INPUT_TRIMAP):
            self._tensors[name].upload(stream)

    def download(self, stream: Any) -> None:
        """Queue the copy of alpha to the host on a stream or a graph builder."""
        self._tensors[OUTPUT_ALPHA].download(stream)

    def alpha(self) -> Floating:
        """Return a copy of the alpha that was downloaded: float32 N, H, W. The buffer is the next batch's.

        Raises:
            BackendError: no batch has been prepared yet.
        """
        if self._shape is None:
            raise BackendError("buffers were read before they had a shape")
        return self._tensors[OUTPUT_ALPHA].host.view(np.float32).reshape(self._shape).copy()

    def close(self) -> None:
        """Release the memory. Closing twice has no effect."""
        for tensor in self._tensors.values():
            tensor.close()
        self._shape = None


class _StagedTensor:
    """The same bytes in page-locked host memory and on the GPU."""

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        self._gpu, self._stream = gpu, stream
        self._capacity = 0
        self._whole: list[Any] = []
        self._parts: tuple[Any, Any] | None = None
        self._pixels: UInt8 | None = None

    @property
    def host(self) -> UInt8:
        """The reserved bytes in host memory, uint8."""
        if self._parts is None or self._pixels is None:
            raise BackendError("a buffer was used before it had a size")
        return self._pixels[: self._parts[0].size]

    @property
    def address(self) -> int:
        """Address on the GPU; 0 before the first :meth:`reserve`."""
        return int(self._parts[1].handle) if self._parts else 0

    def reserve(self, size: int) -> None:
        if size > self._capacity:
            self._grow(size)
        if self._parts is None or self._parts[0].size != size:
            host, device = (self._gpu.part(buffer, size) for buffer in self._whole)
            self._parts = host, device

    def upload(self, stream: Any) -> None:
        self._copy(0, 1, stream)

    def download(self, stream: Any) -> None:
        self._copy(1, 0, stream)

    def close(self) -> None:
        self._parts = self._pixels = None
        self._capacity = 0
        buffers, self._whole = self._whole, []
        for buffer in buffers:
            with explained("release memory"):
                buffer.close()

    def _grow(self, size: int) -> None:
        self.close()
        self._whole.append(self._gpu.allocate_host(size))
        self._whole.append(self._gpu.allocate(size, self._stream))
        # By address: older versions of numpy and cuda.core make read-only arrays of DLPack.
        memory = (ctypes.c_uint8 * size).from_address(int(self._whole[0].handle))
        self._pixels = np.ctypeslib.as_array(memory)
        self._capacity = size

    def _copy(self, source: int, target: int, stream: Any) -> None:
        if self._parts is None:
            raise BackendError("a buffer was used before it had a size")
        with explained("copy between host and GPU"):
            self._parts[source].copy_to(self._parts[target], stream=stream)


@contextmanager
def explained(request: str) -> Iterator[None]:
    """Raise BackendError for whatever cuda.core raises: it has no public class for CUDA's errors."""
    try:
        yield
    except DimError:
        raise
    except Exception as error:
        raise BackendError(
            "the GPU refused a request",
            got=request,
            why=f"{type(error).__name__}: {first_line(error)}",
            fix=MEMORY_ADVICE,
        ) from error


def require_place(array: Any, name: str, expected: tuple[int, int]) -> None:
    """Require an array that supports DLPack on the device ``expected``: DLPack's kind and the number.

    Raises:
        InputError: no DLPack, or another device.
    """
    if not (hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")):
        raise InputError(
            f"cannot use this {name}", got=type(array).__name__, expected="an array that supports DLPack"
        )
    kind, number = map(int, array.__dlpack_device__())
    if (kind, number) != expected:
        raise InputError(
            f"cannot use this {name}",
            got=f"an array on device {number} of DLPack's kind {kind}",
            expected=f"device {expected[1]} of kind {expected[0]}, where the model is",
            fix=f'device="cuda:{number}" (--device cuda:{number}), or copy the array'
            if kind == DLPACK_CUDA
            else "copy the array to the GPU, or pass numpy arrays to the model itself",
        )


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether strides, in elements, are those of C order; an axis of one entry may have any stride."""
    return all(side == 1 or strides[axis] == prod(shape[axis + 1 :]) for axis, side in enumerate(shape))
