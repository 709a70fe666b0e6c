"""Small windows two at a time, each on half of the threads.

With all threads on one window, each thread waits for the slowest one after every layer. Two windows, each on
half of the threads, do not wait for each other: 1 to 9 % less time in int8, full width, at context 64 (four
photographs of 5 to 9 megapixels, two cores), most while one core is slower, as on shared machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, Semaphore
from typing import Any

STREAMS = 2
"""Windows at one time: each needs its memory."""
FURTHER_BYTES = 670_000_000
"""Bytes that the second window may take: a few percent of the time are not worth more."""
WORTHWHILE_MULTIPLY_ADDS = 1e12
"""With less work than this it would take many images to regain the time to compile the streams' graphs: 0.3
seconds, once."""
BALANCED = 1.03
"""The last stream may end so much later than both would on average: it uses half of the threads then."""


def stream_options(threads: int) -> dict[str, Any]:
    """Return what a stream's graph is compiled with, if so many threads are for all.

    Pinned to cores, the threads of both graphs would share the first ones.
    """
    return {"INFERENCE_NUM_THREADS": threads // STREAMS, "ENABLE_CPU_PINNING": False}


def is_balanced(work: Sequence[float]) -> bool:
    """Return whether streams that take windows of this work in order end at about the same time."""
    ends = [0.0] * STREAMS
    for each in work:
        ends[ends.index(min(ends))] += each
    return 0 < max(ends) * STREAMS <= BALANCED * sum(ends)


class StreamGraphs:
    """A graph with free shapes for each stream. One graph of OpenVINO's with two streams is a third slower
    where shapes change from window to window.

    Args:
        compiled: returns a compiled graph; called in threads, because OpenVINO compiles on one core.
    """

    def __init__(self, compiled: Callable[[], Any]) -> None:
        with ThreadPoolExecutor(STREAMS) as pool:
            self._idle = [each.result() for each in [pool.submit(compiled) for _ in range(STREAMS)]]
        self.widest = 0
        """Pixels of the largest window that they have run."""

    @contextmanager
    def taken(self, pixels: int) -> Iterator[Any]:
        """Yield a graph that is idle, for a window of so many pixels."""
        graph = self._idle.pop()
        try:
            yield graph
        finally:
            self.widest = max(self.widest, pixels)
            self._idle.append(graph)

    def release_memory(self) -> None:
        """Return the memory of all windows that were run; no graph may be taken meanwhile."""
        for graph in self._idle:
            graph.release_memory()
        self.widest = 0


class Turns:
    """Lets calls into an engine run alone, or in streams beside each other."""

    def __init__(self) -> None:
        self._next = Lock()
        self._free = Semaphore(STREAMS)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nothing runs; nothing else runs within."""
        with self._taken(STREAMS):
            yield

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Wait until a stream is free."""
        with self._taken(1):
            yield

    @contextmanager
    def _taken(self, streams: int) -> Iterator[None]:
        taken = 0
        try:
            # One at a time waits for streams: two that need both could have one each without end.
            with self._next:
                while taken < streams:
                    self._free.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()
