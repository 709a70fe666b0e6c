"""Arrays in a GPU's memory, taken and given through DLPack, without the library that made them.

Structures of DLPack 0.8 (``dlpack.h``), the form that every library still speaks: a capsule named "dltensor"
holds a pointer to a tensor and to a function that frees it; whoever takes it renames the capsule.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from math import prod
from typing import Any, NamedTuple

from dim.arrays import Shape
from dim.errors import InputError

CUDA = 2
"""DLPack's number for memory of an NVIDIA GPU (kDLCUDA)."""
UNSIGNED, FLOAT = 1, 2
"""DLPack's numbers for kinds of values."""
NAME, USED_NAME = b"dltensor", b"used_dltensor"


class Borrowed(NamedTuple):
    """A contiguous uint8 array of somebody else's: its address on the GPU, and its shape."""

    address: int
    shape: Shape


@contextmanager
def borrowed(array: Any, name: str, device: int, *, kind: int = CUDA) -> Iterator[Borrowed]:
    """The memory of an array, which is its owner's again afterwards; nothing is copied.

    Args:
        array: uint8, contiguous, complete; speaks DLPack.
        name: for messages.
        device: number of the GPU that it must lie on.
        kind: DLPack's number of the kind of device.

    Raises:
        InputError: anything else.
    """
    _require_place(array, name, (kind, device))
    capsule = array.__dlpack__()
    managed = _Managed.from_address(_pointer(capsule, NAME))
    _set_name(capsule, USED_NAME)
    try:
        yield _checked(managed.tensor, name)
    finally:
        if managed.deleter:
            managed.deleter(ctypes.addressof(managed))


class DeviceArray:
    """Float32 in a GPU's memory, for whoever speaks DLPack: ``torch.from_dlpack(array)``.

    The memory is freed when nothing refers to it any more, neither this object nor what was made of it.

    Args:
        address: on the device.
        shape: C-contiguous.
        device: number of the GPU.
        free: called once, with the address.
        kind: DLPack's number of the kind of device.
    """

    def __init__(
        self, address: int, shape: Shape, device: int, free: Callable[[int], object], *, kind: int = CUDA
    ) -> None:
        self.address, self.shape = address, shape
        self._device = kind, device
        weakref.finalize(self, free, address)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **_: object) -> Any:
        """A capsule; the values are complete, so that no stream has to wait."""
        return _capsule(_Holder(self))


class _Device(Structure):
    _fields_ = (("kind", c_int32), ("number", c_int32))


class _Type(Structure):
    _fields_ = (("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16))


class _Tensor(Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device", _Device),
        ("dimensions", c_int32),
        ("type", _Type),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("offset", c_uint64),
    )


_Deleter = CFUNCTYPE(None, c_void_p)


class _Managed(Structure):
    _fields_ = (("tensor", _Tensor), ("owner", c_void_p), ("deleter", _Deleter))


class _Holder:
    """Keeps an array and what describes it alive while somebody has its capsule or its memory."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self.sides = (c_int64 * len(array.shape))(*array.shape)
        tensor = _Tensor(
            array.address, _Device(*array.__dlpack_device__()), len(array.shape), _Type(FLOAT, 32, 1)
        )
        tensor.shape = ctypes.cast(self.sides, POINTER(c_int64))
        self.managed = _Managed(tensor, id(self), _RELEASE)


def _release(managed: int) -> None:
    owner = _Managed.from_address(managed).owner
    ctypes.pythonapi.Py_DecRef(ctypes.cast(owner, ctypes.py_object))


def _destroy(capsule: int) -> None:
    """A capsule goes; if nobody took what is in it, that goes too."""
    if _python("PyCapsule_IsValid", ctypes.c_int, c_void_p, ctypes.c_char_p)(capsule, NAME):
        _release(_python("PyCapsule_GetPointer", c_void_p, c_void_p, ctypes.c_char_p)(capsule, NAME))


_RELEASE, _DESTROY = _Deleter(_release), _Deleter(_destroy)


def _capsule(holder: _Holder) -> Any:
    make = _python("PyCapsule_New", ctypes.py_object, c_void_p, ctypes.c_char_p, c_void_p)
    capsule = make(ctypes.addressof(holder.managed), NAME, ctypes.cast(_DESTROY, c_void_p))
    # What the deleter gives back.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))
    return capsule


def _pointer(capsule: Any, name: bytes) -> int:
    pointer = _python("PyCapsule_GetPointer", c_void_p, ctypes.py_object, ctypes.c_char_p)
    return int(pointer(capsule, name))


def _set_name(capsule: Any, name: bytes) -> None:
    _python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(capsule, name)


def _python(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of Python's C interface; a prototype of its own, for the shared one may have another."""
    found: Callable[..., Any] = ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))
    return found


def _require_place(array: Any, name: str, device: tuple[int, int]) -> None:
    if not (hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")):
        raise InputError(
            f"cannot use this {name}", got=type(array).__name__, expected="an array that speaks DLPack"
        )
    found = tuple(map(int, array.__dlpack_device__()))
    if found != device:
        raise InputError(
            f"cannot use this {name}",
            got=f"an array on device {found[1]} of DLPack's kind {found[0]}",
            expected=f"device {device[1]} of kind {device[0]}, where the model is",
            fix="copy the array there, or open the model on the array's device",
        )


def _checked(tensor: _Tensor, name: str) -> Borrowed:
    shape = tuple(tensor.shape[place] for place in range(tensor.dimensions))
    kind = tensor.type.code, tensor.type.bits, tensor.type.lanes
    if kind != (UNSIGNED, 8, 1):
        raise InputError(
            f"cannot use this {name}", got=f"DLPack's type {kind}", expected=f"uint8, {(UNSIGNED, 8, 1)}"
        )
    if tensor.strides and not _is_contiguous(shape, tensor.strides):
        raise InputError(f"cannot use this {name}", got="a strided array", expected="a contiguous one")
    return Borrowed((tensor.data or 0) + tensor.offset, shape)


def _is_contiguous(shape: Shape, strides: Any) -> bool:
    """Whether neighbours in the last axis lie side by side, and so on; axes of one entry have any stride."""
    return all(side == 1 or strides[place] == prod(shape[place + 1 :]) for place, side in enumerate(shape))
