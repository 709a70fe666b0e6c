"""Worker processes with a progress bar, that stop when the process which started them is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dim.errors import DimError, InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

_CHUNK = 8
"""Quick tasks that travel to a worker together."""


class Crew:
    """Runs one function over many tasks; without a pool in this process."""

    def __init__(self, pool: ProcessPoolExecutor | None, bar: Progress) -> None:
        self.pool, self.bar = pool, bar

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], label: str) -> list[Result]:
        """Results of many quick tasks, in their order; the bar counts tasks."""
        return self._run(function, tasks, [1] * len(tasks), label, _CHUNK)

    def work(
        self, function: Callable[[Task], int], tasks: Sequence[Task], sizes: list[int], label: str
    ) -> int:
        """Sum of the results of long tasks; the bar counts what each of them holds."""
        return sum(self._run(function, tasks, sizes, label, 1))

    def _run(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        sizes: list[int],
        label: str,
        chunk: int,
    ) -> list[Result]:
        row = self.bar.add_task(label, total=sum(sizes))
        results = (
            map(function, tasks) if self.pool is None else self.pool.map(function, tasks, chunksize=chunk)
        )
        found = []
        for result, size in zip(results, sizes, strict=True):
            found.append(result)
            self.bar.advance(row, size)
        return found


@contextmanager
def crew(workers: int, *, progress: bool) -> Iterator[Crew]:
    """Worker processes for the length of a block; one worker is this process.

    Raises:
        InputError: fewer than one worker.
        DimError: a worker was killed.
    """
    if workers < 1:
        raise InputError(
            "cannot start worker processes", got=workers, expected="1 or more", fix="--workers 1"
        )
    with _bar(progress) as bar:
        if workers == 1:
            yield Crew(None, bar)
            return
        # Spawned: a fork would copy the threads of OpenCV and of the bar in a state they never wake from.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
        try:
            yield Crew(pool, bar)
        except BrokenProcessPool as error:
            raise DimError(
                "a worker process was killed",
                why="often too little memory",
                fix="fewer --workers; run again: what is written is kept",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _bar(progress: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent sees to it
    cv2.setNumThreads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
