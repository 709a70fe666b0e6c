# ruff: noqa: N802  (names of TensorRT)
"""A stand-in for TensorRT that computes alpha = red / 255 in the memory of the fake GPU."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from dim.arrays import Shape

from .fake_cuda import FakeCore


class Kind(Enum):
    UINT8 = 1
    FLOAT = 2


class FakeContext:
    """An execution context that insists on shapes, then addresses, then execution."""

    def __init__(self, core: FakeCore, config: Any) -> None:
        self.core, self.config = core, config
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.refuses: set[str] = set()
        self.busy = threading.Lock()

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.core.calls.append(f"shape {name}")
        self.shapes[name] = shape
        return "set_input_shape" not in self.refuses

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert {"image", "trimap"} <= set(self.shapes)
        self.core.calls.append(f"address {name}")
        self.addresses[name] = address
        return "set_tensor_address" not in self.refuses

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self.addresses) == {"image", "trimap", "alpha"}
        queue = self.core.stream(stream)
        assert queue.recording is not None or self.busy.acquire(blocking=False), "two runs in one context"
        self.core.calls.append("execute")
        queue.put(self._compute(self.shapes["trimap"], dict(self.addresses)))
        return "execute_async_v3" not in self.refuses

    def _compute(self, shape: Shape, addresses: dict[str, int]) -> Callable[[], None]:
        pixels = int(np.prod(shape))

        def work() -> None:
            assert {addresses["image"], addresses["alpha"]} <= set(self.core.live)
            image = _memory(addresses["image"], 3 * pixels)
            alpha = _memory(addresses["alpha"], 4 * pixels).view(np.float32)
            alpha[:] = image.reshape(-1, 3)[:, 0] / np.float32(255)
            if self.busy.locked():
                self.busy.release()

        return work


def _memory(address: int, size: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class FakeTensorRT:
    """Behaves like the modules ``tensorrt`` and ``tensorrt_rtx`` as far as running an engine goes."""

    __version__ = "1.7.1.116"
    DataType = Kind
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(NONE="none")

    class ILogger:
        ERROR = 1

    def __init__(self, core: FakeCore) -> None:
        self.core = core
        self.contexts: list[FakeContext] = []
        self.tensors = {"image": Kind.UINT8, "trimap": Kind.UINT8, "alpha": Kind.FLOAT}
        self.plans: list[bytes] = []
        self.loads = self.makes_contexts = self.starts = True
        self.host_code_allowed = False

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        if not self.starts:
            logger.log(1, "no driver")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.runtime = SimpleNamespace(deserialize_cuda_engine=self._load)
        return self.runtime

    def _load(self, plan: bytes) -> Any:
        assert self.core.current.device >= 0
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
            create_runtime_config=self._config,
        )

    def _config(self) -> Any:
        config = SimpleNamespace(create_runtime_cache=object)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def _context(self, config: Any = None) -> FakeContext | None:
        if not self.makes_contexts:
            return None
        self.contexts.append(FakeContext(self.core, config))
        return self.contexts[-1]
