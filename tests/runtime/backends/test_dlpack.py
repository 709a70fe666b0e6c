"""DLPack with numpy at the other end: the memory, who frees it, and what is refused."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.backends.dlpack import DeviceArray, borrowed

CPU = 1
"""DLPack's number for memory of the computer."""


class Memory:
    """Float32 numbers at an address, and what was freed."""

    def __init__(self, count: int) -> None:
        self.values = np.arange(count, dtype=np.float32)
        self.freed: list[int] = []

    def array(self, shape: tuple[int, ...]) -> DeviceArray:
        return DeviceArray(self.values.ctypes.data, shape, 0, self.freed.append, kind=CPU)


def test_numpy_reads_what_is_given() -> None:
    memory = Memory(24)
    seen = np.from_dlpack(memory.array((2, 3, 4)))  # type: ignore[arg-type]
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, memory.values.reshape(2, 3, 4))
    assert seen.ctypes.data == memory.values.ctypes.data


def test_memory_is_freed_once_and_after_its_last_user() -> None:
    memory = Memory(6)
    array = memory.array((1, 2, 3))
    first, second = (np.from_dlpack(array) for _ in range(2))  # type: ignore[arg-type]
    del array, first
    gc.collect()
    assert memory.freed == []
    assert second.sum() == 15
    del second
    gc.collect()
    assert memory.freed == [memory.values.ctypes.data]


def test_a_capsule_that_nobody_takes_frees_too() -> None:
    memory = Memory(6)
    capsule = memory.array((1, 2, 3)).__dlpack__()
    gc.collect()
    assert memory.freed == []
    del capsule
    gc.collect()
    assert len(memory.freed) == 1


def test_many_capsules_leave_nothing() -> None:
    memory = Memory(6)
    for _ in range(1000):
        np.from_dlpack(memory.array((1, 2, 3)))  # type: ignore[arg-type]
    gc.collect()
    assert len(memory.freed) == 1000


def test_what_is_borrowed_is_not_copied_and_given_back() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with borrowed(array, "image", 0, kind=CPU) as seen:
        assert seen.address == array.ctypes.data
        assert seen.shape == (2, 3, 4)
        assert bytes((ctypes.c_uint8 * 24).from_address(seen.address)) == array.tobytes()
        array[0, 0, 0] = 7
    # Given back: numpy lets an array be resized only if nobody else holds it.
    alone = array.copy()
    with borrowed(alone, "image", 0, kind=CPU), pytest.raises(ValueError, match="resize"):
        alone.resize((1, 1, 1))
    alone.resize((1, 1, 1))


def test_an_axis_of_one_entry_may_have_any_stride() -> None:
    array = np.zeros((4, 3, 4), np.uint8)[::2][:1]
    with borrowed(array, "image", 0, kind=CPU) as seen:
        assert seen.shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3, 4), np.float32), "uint8"),
        (np.zeros((2, 3, 4), np.int8), "uint8"),
        (np.zeros((2, 3, 8), np.uint8)[..., ::2], "contiguous"),
        ([1, 2], "speaks DLPack"),
    ],
)
def test_other_arrays_are_refused_and_given_back(array: Any, said: str) -> None:
    with pytest.raises(InputError, match=said), borrowed(array, "image", 0, kind=CPU):
        pytest.fail("it was taken")


def test_another_device_is_refused() -> None:
    refused = pytest.raises(InputError, match=r"(?s)device 0 of DLPack.s kind 1.*device 1 of kind 2")
    with refused, borrowed(np.zeros((1, 2, 3), np.uint8), "trimap", 1):
        pytest.fail("it was taken")
