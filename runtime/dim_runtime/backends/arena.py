"""ONNX Runtime's memory on the CPU: one arena for the process, and what it keeps for the next window.

An arena that returns a window's memory bounds the process by one window. The next window of the same size
then faults all its pages again, which takes up to a sixth of the time of a small photograph. So the memory of
a small window is kept while windows of that shape follow, and returned before any other shape.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from dim_runtime.memory import release_free_memory

SHRINK_ARENA = "memory.enable_memory_arena_shrinkage"
SAME_AS_REQUESTED = 1
ALREADY_THERE = "already been registered"
KEPT_BYTES = 300_000_000
"""Bytes of a window whose memory may be kept: a photograph of 0.8 megapixels in the embedded model."""
IDENTITY = (
    b'\x08\x08\x12\x00:/\n\x10\n\x01a\x12\x01b"\x08Identity\x12\x01gZ\x0b\n\x01a\x12\x06\n\x04\x08\t\x12\x00'
    b"b\x0b\n\x01b\x12\x06\n\x04\x08\t\x12\x00B\x04\n\x00\x10\r"
)
"""An ONNX file of one node, b = Identity(a), of one bool. Only runs return memory; this one is quick."""


class KeptMemory:
    """Chooses for each run of a back end whether the arena keeps its memory. Threads may share it.

    Args:
        engine: the module ``onnxruntime``.
    """

    def __init__(self, engine: Any) -> None:
        register_arena(engine)
        self._keeping, self._returning = engine.RunOptions(), engine.RunOptions()
        self._returning.add_run_config_entry(SHRINK_ARENA, "cpu:0")
        self._identity = engine.InferenceSession(
            IDENTITY, _identity_options(engine), providers=["CPUExecutionProvider"]
        )
        self._lock = threading.Lock()
        self._running = 0
        self._kept: dict[str, tuple[int, ...]] = {}
        """Shape of the windows whose memory is kept, for each graph."""

    @contextmanager
    def run(self, graph: str, shape: tuple[int, ...], needed: int) -> Iterator[Any]:
        """Yield the options of a run.

        Args:
            graph: the network, or another graph that runs in turn with it.
            shape: N, H, W of the windows.
            needed: bytes that the run takes.
        """
        with self._lock:
            if self._kept.get(graph, shape) != shape:
                self._release()
            # Two runs at once would leave the memory of two windows.
            keep = needed <= KEPT_BYTES and not self._running
            if not keep:
                self._kept.clear()
            self._running += 1
        try:
            yield self._keeping if keep else self._returning
        finally:
            with self._lock:
                self._running -= 1
                if keep and self._running:
                    self._release()
                elif keep:
                    self._kept[graph] = shape

    @property
    def keeps(self) -> bool:
        """Whether memory is kept for the next window."""
        return bool(self._kept)

    def release(self) -> None:
        """Return what is kept to the system."""
        with self._lock:
            if self.keeps:
                self._release()

    def _release(self) -> None:
        self._kept.clear()
        self._identity.run(None, {"a": np.zeros((), np.bool_)}, self._returning)
        # The arena frees it to the C library, where windows of many shapes would leave ever more of it.
        release_free_memory()


@cache
def register_arena(engine: Any) -> None:
    """Register an arena that grows by the requested size. A session's own doubles: up to 1.4 × the memory.

    ONNX Runtime has such an arena only for the whole process. Other sessions of the process use it only if
    their options request a shared arena. If such a session has registered one already, release 1.19 refuses
    a second, and ours use the first.
    """
    memory = engine.OrtMemoryInfo(
        "Cpu", engine.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, engine.OrtMemType.DEFAULT
    )
    arena = engine.OrtArenaCfg({"arena_extend_strategy": SAME_AS_REQUESTED})
    try:
        engine.create_and_register_allocator(memory, arena)
    except RuntimeError as error:
        if ALREADY_THERE not in str(error):
            raise


def use_arena(options: Any) -> None:
    """Make a session with these options use the arena."""
    options.add_session_config_entry("session.use_env_allocators", "1")


def _identity_options(engine: Any) -> Any:
    options = engine.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    use_arena(options)
    return options
