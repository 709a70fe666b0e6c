"""Calls of a back end, of which several run at one time where the back end gains from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

Result = TypeVar("Result")


class Calls:
    """Runs calls in threads, at most ``limit`` at one time; leaving the block waits for those that run.

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
