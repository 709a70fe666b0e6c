"""A stand-in for ``cuda.core``: ordinary memory at real addresses, streams that queue work, and a call log.

A wrong address, size or order gives a wrong alpha or a crash, not a silent pass.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.core.utils import StridedMemoryView as RealView

Work = Callable[[], None]


class FakeCudaError(Exception):
    """The real package has no public class for CUDA's errors either."""


class FakeCore:
    """Behaves like the module ``cuda.core``; calls named in ``failing`` raise.

    Args:
        eager: run work at once, for engines that do not use our streams.

    Attributes:
        calls: names of calls, in order.
        live: memory by address: allocated and not released, or lent by a test.
        streams: handles of open streams.
        graphs: how many recordings exist.
        current: number of the calling thread's GPU, as ``current.device``.
        waited: stream handles that producers of arrays were told to make wait.
    """

    def __init__(
        self, capability: tuple[int, int] = (8, 6), devices: int = 2, *, eager: bool = False
    ) -> None:
        self.eager = eager
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.live: dict[int, Any] = {}
        self.streams: dict[int, FakeStream] = {}
        self.graphs = 0
        self.current = threading.local()
        self.waited: list[int] = []
        self._devices = tuple(FakeDevice(self, number, capability) for number in range(devices))
        self.Device = SimpleNamespace(get_all_devices=self._all)
        self.Buffer = SimpleNamespace(from_handle=self._part)
        self.utils = SimpleNamespace(
            StridedMemoryView=SimpleNamespace(from_dlpack=self._view, from_buffer=self._array)
        )

    def call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise FakeCudaError("CUDA_ERROR_OUT_OF_MEMORY: the GPU is full")

    def LegacyPinnedMemoryResource(self) -> Any:  # noqa: N802
        return SimpleNamespace(allocate=lambda size: FakeBuffer(self, "pin", size))

    def stream(self, handle: int) -> FakeStream:
        return self.streams[handle]

    def lend(self, array: Any) -> None:
        """Make an array's memory count as the GPU's."""
        self.live[array.ctypes.data] = array

    def held(self, kind: str | None = None) -> int:
        """Return how many allocations are not released: "pin", "allocate", or both."""
        gc.collect()
        found = [entry for entry in self.live.values() if isinstance(entry, _Entry)]
        return len([entry for entry in found if kind in (None, entry.kind)])

    def _all(self) -> tuple[FakeDevice, ...]:
        self.call("devices")
        return self._devices

    def _part(self, address: int, size: int, owner: FakeBuffer | FakeArray) -> FakeBuffer:
        whole = owner.buffer if isinstance(owner, FakeArray) else owner
        assert address == whole.address
        return FakeBuffer(self, "part", size, whole)

    def _view(self, array: Any, stream_ptr: int) -> Any:
        self.waited.append(stream_ptr)
        assert stream_ptr in self.streams
        return RealView.from_dlpack(array, stream_ptr=-1)

    def _array(self, buffer: FakeBuffer, shape: tuple[int, ...], dtype: Any) -> FakeArray:
        assert buffer.size == dtype.itemsize * int(np.prod(shape))
        return FakeArray(buffer, shape, dtype)


class FakeDevice:
    name = "NVIDIA Stand-in"

    def __init__(self, core: FakeCore, number: int, capability: tuple[int, int]) -> None:
        self.core, self.device_id, self.compute_capability = core, number, capability
        self._default: FakeStream | None = None

    def set_current(self) -> None:
        self.core.call("set_current")
        self.core.current.device = self.device_id

    @property
    def default_stream(self) -> FakeStream:
        if self._default is None:
            self._default = FakeStream(self.core, self.device_id)
        return self._default

    def create_stream(self) -> FakeStream:
        self.core.call("create_stream")
        return FakeStream(self.core, self.device_id)

    def allocate(self, size: int, *, stream: FakeStream) -> FakeBuffer:
        assert self.core.current.device == self.device_id == stream.device
        assert not stream.closed
        return FakeBuffer(self.core, "allocate", size)


class FakeBuffer:
    """Its own memory, or a part of an owner's."""

    def __init__(self, core: FakeCore, kind: str, size: int, owner: FakeBuffer | None = None) -> None:
        self.core, self.kind, self.size, self.owner = core, kind, size, owner
        self.closed = True
        self.device = getattr(core.current, "device", 0)
        if owner is None:
            core.call(kind)
            self.memory = np.zeros(size, np.uint8)
            core.live[self.memory.ctypes.data] = _Entry(kind)
        else:
            self.memory = owner.memory[:size]
        self.address = self.memory.ctypes.data
        self.closed = False

    @property
    def handle(self) -> int:
        assert not self.closed
        return self.address

    def close(self) -> None:
        assert not self.closed
        self.core.call(f"close {self.kind}")
        self._release()

    def _release(self) -> None:
        if not self.closed:
            self.closed = True
            if self.owner is None:
                del self.core.live[self.address]

    def __del__(self) -> None:
        # As the real buffer: what nothing refers to is released.
        self._release()

    def copy_to(self, target: FakeBuffer, *, stream: Any) -> None:
        self.core.call("copy")
        assert self.size == target.size
        assert {self.whole, target.whole} == {"pin", "allocate"}
        assert not self.closed
        assert not target.closed
        stream.put(lambda: np.copyto(target.memory, self.memory))

    @property
    def whole(self) -> str:
        return self.kind if self.owner is None else self.owner.kind

    def __dlpack__(self, **options: Any) -> Any:
        assert self.kind == "pin"
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class _Entry:
    """A record of live memory that does not keep it alive."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class FakeArray:
    """An array on the fake GPU, with DLPack."""

    def __init__(self, buffer: FakeBuffer, shape: tuple[int, ...], dtype: Any) -> None:
        self.buffer, self.shape, self.dtype = buffer, shape, dtype

    @property
    def ptr(self) -> int:
        return self.buffer.handle

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.buffer.device

    def __dlpack__(self, **options: Any) -> Any:
        return self.values_in_place().__dlpack__()

    def values_in_place(self) -> Any:
        return self.buffer.memory.view(self.dtype).reshape(self.shape)

    def values(self) -> Any:
        """Return the present content of the memory."""
        return self.values_in_place().copy()


class FakeStream:
    """Queues work until the program synchronises, as a GPU may."""

    def __init__(self, core: FakeCore, device: int) -> None:
        self.core, self.device = core, device
        self.handle = id(self)
        self.pending: list[Work] = []
        self.recording: list[Work] | None = None
        self.closed = False
        core.streams[self.handle] = self

    def put(self, work: Work) -> None:
        if self.core.eager:
            work()
            return
        (self.pending if self.recording is None else self.recording).append(work)

    def wait(self, other: FakeStream) -> None:
        self.core.call("wait")
        assert not other.closed

    def sync(self) -> None:
        self.core.call("sync")
        assert self.recording is None
        pending, self.pending = self.pending, []
        for work in pending:
            work()

    def create_graph_builder(self) -> FakeBuilder:
        return FakeBuilder(self)

    def close(self) -> None:
        self.core.call("close stream")
        self.closed = True
        del self.core.streams[self.handle]


class FakeBuilder:
    """Records what is put on its stream."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream, self.recorded = stream, None

    def begin_building(self, mode: str) -> FakeBuilder:
        self.stream.core.call(f"record {mode}")
        self.stream.recording = []
        return self

    def put(self, work: Work) -> None:
        assert self.stream.recording is not None
        self.stream.put(work)

    def end_building(self) -> FakeBuilder:
        self.stream.core.call("recorded")
        self.recorded, self.stream.recording = self.stream.recording, None  # type: ignore[assignment]
        return self

    def complete(self) -> FakeGraph:
        assert self.recorded is not None
        return FakeGraph(self.stream.core, self.recorded)

    def close(self) -> None:
        self.stream.recording = None


class FakeGraph:
    def __init__(self, core: FakeCore, recorded: list[Work]) -> None:
        self.core, self.recorded = core, recorded
        core.graphs += 1

    def launch(self, stream: FakeStream) -> None:
        self.core.call("launch")
        stream.pending.extend(self.recorded)

    def close(self) -> None:
        self.core.graphs -= 1


class OnGpu:
    """A numpy array that passes for one in the fake GPU's memory."""

    def __init__(self, array: Any, core: FakeCore, number: int = 0) -> None:
        self.array, self.number = array, number
        core.lend(array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.number

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__()
