"""Worker processes: spawned, unaware of Ctrl-C, ended with their parent; a killed one is an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import ParamSpec, TypeVar

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dim.errors import DimError, InputError

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 8
"""Number of quick tasks that travel to a worker together."""


class InlineExecutor(Executor):
    """An executor that runs a function at once, in this process."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return a finished future; an error of ``fn`` is raised here."""
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def worker_processes(count: int, *, fix: str) -> Iterator[Executor]:
    """Yield a pool of processes, or with 0 an executor that runs everything in this one.

    The processes are spawned, not forked: threads of PyTorch and OpenCV do not survive a fork. They import
    only the modules of the submitted functions.

    Args:
        count: number of processes.
        fix: advice of the error if a worker was killed.

    Raises:
        InputError: a negative count.
        DimError: a worker was killed.
    """
    if count < 0:
        raise InputError("cannot use this number of workers", got=count, expected="0 or more")
    if count == 0:
        yield InlineExecutor()
        return
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DimError(
            "a worker process was killed", why="most often the machine ran out of memory", fix=fix
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class Crew:
    """Runs one function over many tasks, with a progress bar."""

    def __init__(self, pool: Executor, bar: Progress) -> None:
        self.pool, self.bar = pool, bar

    def map(self, function: Callable[[T], R], tasks: Sequence[T], label: str) -> list[R]:
        """Return the results of many quick tasks, in their order; the bar counts tasks."""
        return self._run(function, tasks, [1] * len(tasks), label, _CHUNK)

    def work(self, function: Callable[[T], int], tasks: Sequence[T], sizes: list[int], label: str) -> int:
        """Return the sum of the results of long tasks; the bar counts the size of each."""
        return sum(self._run(function, tasks, sizes, label, 1))

    def _run(
        self, function: Callable[[T], R], tasks: Sequence[T], sizes: list[int], label: str, chunk: int
    ) -> list[R]:
        row = self.bar.add_task(label, total=sum(sizes))
        inline = isinstance(self.pool, InlineExecutor)
        results = map(function, tasks) if inline else self.pool.map(function, tasks, chunksize=chunk)
        found = []
        for result, size in zip(results, sizes, strict=True):
            found.append(result)
            self.bar.advance(row, size)
        return found


@contextmanager
def crew(workers: int, *, progress: bool) -> Iterator[Crew]:
    """Yield a crew of worker processes; one worker is this process.

    Raises:
        InputError: fewer than one worker.
        DimError: a worker was killed.
    """
    if workers < 1:
        raise InputError(
            "cannot start worker processes", got=workers, expected="1 or more", fix="--workers 1"
        )
    fix = "fewer --workers; run again: files that were written are kept"
    with _bar(progress) as bar, worker_processes(workers if workers > 1 else 0, fix=fix) as pool:
        yield Crew(pool, bar)


def _bar(progress: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )


def _start() -> None:
    # Ctrl-C reaches the whole group of processes: the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_exit_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _exit_with_parent() -> None:
    """Exit when the parent dies; otherwise workers block on the queue forever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
