"""ONNX Runtime with inputs and output bound to buffers on a device: CUDA's, or the CPU's in tests.

Never executed on a GPU so far. Tests bind buffers in the CPU's memory, and follow CUDA's calls with a fake.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from dim.arrays import Floating, Shape, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA
from dim.errors import InputError
from dim_runtime.backends.base import first_line, require_windows
from dim_runtime.errors import BackendError

"""N, H, W."""

KEPT_SHAPES = 8
"""Window shapes whose buffers are kept on the device: 8 bytes per pixel each."""
DLPACK_CUDA = 2
"""DLPack's number for memory of an NVIDIA GPU (kDLCUDA)."""


def is_on_gpu(array: object) -> bool:
    """Whether an array speaks DLPack and lies in an NVIDIA GPU's memory; nothing is copied or imported."""
    speaks = hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")
    return speaks and int(array.__dlpack_device__()[0]) == DLPACK_CUDA  # type: ignore[attr-defined]


class _Buffers(NamedTuple):
    """OrtValues on the device, bound once and used for every window of one shape."""

    binding: Any
    image: Any
    trimap: Any
    alpha: Any


class BoundSession:
    """Runs a session on one device. Threads may share it; their windows run one after the other.

    Args:
        engine: the module ``onnxruntime``.
        session: an open ``InferenceSession`` on that device.
        number: of the device.
        kind: "cuda", or "cpu" in tests.
    """

    def __init__(self, engine: Any, session: Any, number: int, *, kind: str = "cuda") -> None:
        self._values, self._session, self._place = engine.OrtValue, session, (kind, number)
        self._kept: OrderedDict[Shape, _Buffers] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, image: UInt8, trimap: UInt8, options: Any = None) -> Floating:
        """Alpha of a batch in the computer's memory; shapes as :meth:`Backend.run` has them."""
        with self._lock:
            buffers = self._buffers(trimap.shape)
            buffers.image.update_inplace(np.ascontiguousarray(image))
            buffers.trimap.update_inplace(np.ascontiguousarray(trimap))
            self._session.run_with_iobinding(buffers.binding, options)
            # Copied: the buffer is the next window's.
            return np.array(buffers.alpha.numpy())

    def run_on_device(self, image: Any, trimap: Any, options: Any = None) -> Any:
        """Alpha of a batch that lies on the device; see :meth:`Backend.run_on_device`."""
        colours, hints = self._import(image, "image"), self._import(trimap, "trimap")
        shape = tuple(hints.shape())
        require_windows(tuple(colours.shape()), shape)
        # A new buffer for each result: it is the caller's from now on.
        alpha = self._new(shape, np.float32)
        binding = self._bound(colours, hints, alpha)
        with self._lock:
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()
        return alpha

    def _buffers(self, shape: Shape) -> _Buffers:
        if shape in self._kept:
            self._kept.move_to_end(shape)
            return self._kept[shape]
        while len(self._kept) >= KEPT_SHAPES:
            self._kept.popitem(last=False)
        image, trimap = self._new((*shape, 3), np.uint8), self._new(shape, np.uint8)
        alpha = self._new(shape, np.float32)
        self._kept[shape] = _Buffers(self._bound(image, trimap, alpha), image, trimap, alpha)
        return self._kept[shape]

    def _bound(self, image: Any, trimap: Any, alpha: Any) -> Any:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_IMAGE, image)
        binding.bind_ortvalue_input(INPUT_TRIMAP, trimap)
        binding.bind_ortvalue_output(OUTPUT_ALPHA, alpha)
        return binding

    def _new(self, shape: Shape, dtype: type) -> Any:
        return self._values.ortvalue_from_shape_and_type(list(shape), dtype, *self._place)

    def _import(self, array: Any, name: str) -> Any:
        if not hasattr(self._values, "from_dlpack"):
            raise BackendError(
                "cannot take arrays from the GPU: this ONNX Runtime has no DLPack",
                fix="pip install -U onnxruntime-gpu, or give numpy arrays",
            )
        _require_place(array, name, self._place[1])
        try:
            value = self._values.from_dlpack(array)
        except Exception as error:
            raise InputError(
                f"cannot use this {name}", why=first_line(error), expected="a contiguous array on the GPU"
            ) from error
        if value.data_type() != "tensor(uint8)":
            raise InputError(f"cannot use this {name}", got=value.data_type(), expected="uint8")
        return value


def _require_place(array: Any, name: str, number: int) -> None:
    if not hasattr(array, "__dlpack_device__"):
        raise InputError(
            f"cannot use this {name}", got=type(array).__name__, expected="an array that speaks DLPack"
        )
    found = int(array.__dlpack_device__()[1])
    if found != number:
        raise InputError(
            f"cannot use this {name}",
            got=f"an array on device {found}",
            expected=f"device {number}, where the model is",
            fix=f'device="cuda:{found}" (--device cuda:{found}), or copy the array',
        )
