"""Threads that make the calls into an engine: few for all users of a back end, or several calls at one time.

An engine allocates a window's tensors in the thread that calls it, and glibc keeps freed memory for each
thread separately. Called from 24 threads of a web server, ONNX Runtime held 2.1 GB for windows of 0.4
megapixels; called from two it holds 0.3 GB, at the same speed.

glibc also keeps up to 64 MB of freed memory for each thread that allocates, the caller's threads included. So
the freed memory of the whole process is returned to the system after every two megapixels of windows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import psutil

from dim_runtime.memory import release_free_memory

Result = TypeVar("Result")

AT_LEAST = 2
"""Threads of an engine that uses all cores for one window: while one thread computes, the next can start."""

PIXELS_BETWEEN_RELEASES = 2 * 2**20
"""Pixels of windows after which freed memory is returned: 3 ms for each two seconds of windows or more."""


def fitting(threads: int | None) -> int:
    """Return how many windows may run at once, if each is computed by so many threads; None for all cores."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return AT_LEAST if threads is None else max(cores // threads, AT_LEAST)


class EngineThreads:
    """Runs functions in a fixed number of threads; the caller waits for the result.

    The threads start with the first call. They end with the last reference to this object, or when the
    interpreter exits, which waits for the calls that run.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pixels = 0
        """Pixels of windows since freed memory was last returned to the system."""
        self._pool, self._process = self._made(), os.getpid()

    def _made(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._count, thread_name_prefix="dim-engine")

    def run(self, pixels: int, function: Callable[[], Result]) -> Result:
        """Call the function, which computes windows of so many pixels, in one of the threads.

        Returns:
            The function's result; an error of the function is raised here.
        """
        if self._process != os.getpid():
            # A forked process has none of the threads.
            self._pool, self._process = self._made(), os.getpid()
        return self._pool.submit(self._called, pixels, function).result()

    def _called(self, pixels: int, function: Callable[[], Result]) -> Result:
        result = function()
        # Two threads that add at once may lose a window: the release comes one window later.
        self._pixels += pixels
        if self._pixels >= PIXELS_BETWEEN_RELEASES:
            self._pixels = 0
            release_free_memory()
        return result


class Calls:
    """Runs calls of a back end in threads, at most ``limit`` at one time; leaving the block waits for them.

    Args:
        limit: with 1 there is no thread: a call runs where its result is taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="dim-matting-call") if limit > 1 else None

    def start(self, call: Callable[[], Result]) -> Callable[[], Result]:
        """Start a call; return the function that waits for its result, or raises its error."""
        return call if self._pool is None else self._pool.submit(call).result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
