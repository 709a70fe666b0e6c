# ruff: noqa: N802, N815  (names of CUDA and TensorRT)
"""A fake CUDA runtime and a fake TensorRT: ordinary memory, a call log, and alpha = red / 255.

The addresses are real, so that a wrong copy, size or order gives a wrong alpha or a crash, not a silent pass.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from dim.arrays import Shape


class Status(int):
    name = "cudaErrorMemoryAllocation"


class FakeCuda:
    """Behaves like ``cuda.bindings.runtime``; functions named in ``failing`` refuse.

    Attributes:
        calls: names of functions, in order; device memory is "cudaMalloc", pinned memory "cudaMallocHost".
        live: addresses that were given out and not freed.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=0, cudaDevAttrComputeCapabilityMinor=1)

    def __init__(self, capability: tuple[int, int] = (8, 6), devices: int = 2) -> None:
        self.capability, self.devices = capability, devices
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.live: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.graphs: set[int] = set()
        self.pending: dict[int, list[Callable[[], None]]] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.recorded: dict[int, list[Callable[[], None]]] = {}
        self.current = threading.local()
        self._next = 1

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name in self.failing:
                return (Status(2), None)
            answer = getattr(self, f"_{name}")(*arguments)
            return (Status(0),) if answer is None else (Status(0), answer)

        return call

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:
        return Status(0), b"out of memory"

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Work on a stream waits until somebody synchronises, as on a GPU."""
        self.recording.get(stream, self.pending[stream]).append(work)

    def _cudaGetDeviceCount(self) -> int:
        return self.devices

    def _cudaSetDevice(self, number: int) -> None:
        self.current.device = number

    def _cudaDeviceGetAttribute(self, attribute: int, number: int) -> int:
        return self.capability[attribute]

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == self.cudaStreamNonBlocking
        stream = self._number()
        self.streams.add(stream)
        self.pending[stream] = []
        return stream

    def _cudaStreamSynchronize(self, stream: int) -> None:
        assert stream not in self.recording
        for work in self.pending[stream]:
            work()
        self.pending[stream].clear()

    def _cudaStreamDestroy(self, stream: int) -> None:
        self.streams.remove(stream)

    def _memory(self, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self.live[address] = memory
        return address

    _cudaMalloc = _cudaMallocHost = _memory

    def _forget(self, address: int) -> None:
        del self.live[address]

    _cudaFree = _cudaFreeHost = _forget

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> None:
        assert target in self.live
        assert source in self.live
        self.put(stream, lambda: ctypes.memmove(target, source, size) and None)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        self.recording[stream] = []

    def _cudaStreamEndCapture(self, stream: int) -> int:
        graph = self._number()
        self.recorded[graph] = self.recording.pop(stream)
        self.graphs.add(graph)
        return graph

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        made = self._number()
        self.recorded[made] = self.recorded[graph]
        self.graphs.add(made)
        return made

    def _cudaGraphDestroy(self, graph: int) -> None:
        self.graphs.remove(graph)

    _cudaGraphExecDestroy = _cudaGraphDestroy

    def _cudaGraphLaunch(self, graph: int, stream: int) -> None:
        self.pending[stream].extend(self.recorded[graph])


class Kind(Enum):
    UINT8 = 1
    FLOAT = 2


class FakeContext:
    """An execution context that insists on shapes, then addresses, then execution."""

    def __init__(self, cuda: FakeCuda, config: Any) -> None:
        self.cuda, self.config = cuda, config
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.refuses: set[str] = set()
        self.busy = threading.Lock()

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.cuda.calls.append(f"shape {name}")
        self.shapes[name] = shape
        return "set_input_shape" not in self.refuses

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert {"image", "trimap"} <= set(self.shapes)
        self.cuda.calls.append(f"address {name}")
        self.addresses[name] = address
        return "set_tensor_address" not in self.refuses

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self.addresses) == {"image", "trimap", "alpha"}
        assert stream in self.cuda.streams
        assert stream in self.cuda.recording or self.busy.acquire(blocking=False), "two runs in one context"
        self.cuda.calls.append("execute")
        self.cuda.put(stream, self._compute(self.shapes["trimap"], dict(self.addresses)))
        return "execute_async_v3" not in self.refuses

    def _compute(self, shape: Shape, addresses: dict[str, int]) -> Callable[[], None]:
        pixels = int(np.prod(shape))

        def work() -> None:
            image = np.frombuffer(self.cuda.live[addresses["image"]], np.uint8)[: 3 * pixels]
            memory = self.cuda.live[addresses["alpha"]]
            alpha = np.frombuffer(memory, np.float32, pixels)
            alpha[:] = image.reshape(-1, 3)[:, 0] / np.float32(255)
            if self.busy.locked():
                self.busy.release()

        return work


class FakeTensorRT:
    """Behaves like the modules ``tensorrt`` and ``tensorrt_rtx`` as far as running an engine goes."""

    __version__ = "1.7.1.116"
    DataType = Kind
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    class ILogger:
        ERROR = 1

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.contexts: list[FakeContext] = []
        self.tensors = {"image": Kind.UINT8, "trimap": Kind.UINT8, "alpha": Kind.FLOAT}
        self.plans: list[bytes] = []
        self.loads = self.makes_contexts = True
        self.host_code_allowed = False

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        self.runtime = SimpleNamespace(deserialize_cuda_engine=self._load)
        return self.runtime

    def _load(self, plan: bytes) -> Any:
        assert self.cuda.current.device >= 0
        self.plans.append(plan)
        self.host_code_allowed = getattr(self.runtime, "engine_host_code_allowed", False)
        if not self.loads:
            self.logger.log(2, "just a note")
            self.logger.log(1, "the plan is of another world")
            return None
        names = list(self.tensors)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=names.__getitem__,
            get_tensor_dtype=self.tensors.__getitem__,
            create_execution_context=self._context,
            create_runtime_config=SimpleNamespace,
        )

    def _context(self, config: Any = None) -> FakeContext | None:
        if not self.makes_contexts:
            return None
        self.contexts.append(FakeContext(self.cuda, config))
        return self.contexts[-1]
