"""Threads that make the calls into an engine: few for all users of a back end, or several calls at one time.

An engine allocates a window's tensors in the thread that calls it, and glibc keeps freed memory for each
thread separately. Called from 24 threads of a web server, ONNX Runtime held 2.1 GB for windows of 0.4
megapixels; called from two it holds 0.3 GB, at the same speed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import psutil

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

AT_LEAST = 2
"""Threads of an engine that uses all cores for one window: while one thread computes, the next can start."""


def fitting(threads: int | None) -> int:
    """Return how many windows may run at once, if each is computed by so many threads; None for all cores."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return AT_LEAST if threads is None else max(cores // threads, AT_LEAST)


class EngineThreads:
    """Runs functions in a fixed number of threads; the caller waits for the result.

    The threads start with the first call. They end with :meth:`close`, with the last reference to this
    object, or when the interpreter exits, which waits for the calls that run.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool, self._process = self._made(), os.getpid()

    def _made(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._count, thread_name_prefix="dim-engine")

    def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Return the function's result; an error of the function is raised here."""
        if self._process != os.getpid():
            # A forked process has none of the threads.
            self._pool, self._process = self._made(), os.getpid()
        return self._pool.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Wait for the calls that run, and end the threads."""
        self._pool.shutdown()


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
