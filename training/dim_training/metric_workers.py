"""Processes that compute metrics while this one goes on predicting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import ParamSpec, TypeVar

import cv2

from dim.errors import DimError, InputError

P = ParamSpec("P")
T = TypeVar("T")


class InlineExecutor(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def metric_workers(count: int) -> Iterator[Executor]:
    """A pool of processes, or with 0 an executor that runs everything in this one.

    The processes are started afresh, not forked: threads of PyTorch and OpenCV do not survive a fork. They
    import only what the submitted functions need.

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
            "cannot go on: a process that computes metrics has died",
            why="most often the machine ran out of memory",
            fix="fewer --workers; 0 computes the metrics in the main process",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    # Ctrl-C goes to the whole group of processes: the parent deals with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop, and they would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
