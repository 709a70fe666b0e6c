"""Threads that work on one stream of items, each a step ahead of the next, through bounded queues.

Each step is a generator over the step before it; :meth:`Pipeline.ahead` runs it in a thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

EXIT_SECONDS = 5.0
"""Seconds that the end of the interpreter waits for a thread that is inside the caller's code."""


class Stopped(Exception):  # noqa: N818 - a signal, not an error: it never leaves this module's threads
    """Raised in a thread that waits while the pipeline is stopped."""


class Channel(Generic[Item]):
    """A bounded queue between two threads, which ends, fails or is stopped.

    Args:
        size: the writer waits while so many items are in the channel.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Append an item when there is room; raise Stopped if the pipeline is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._size)
            self._require_running()
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """End the channel; the reader raises the error after the items before it."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake both sides and drop the items."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """Whether the reader gets an item, or the end, without waiting."""
        with self._changed:
            return self._stopped or self._ended or bool(self._items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ended or self._items)
            self._require_running()
            if not self._items:
                error, self._error = self._error, None
                raise error or StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def _require_running(self) -> None:
        if self._stopped:
            raise Stopped


class Pipeline:
    """The threads and channels of one stream; all stop together, at the latest when the interpreter exits.

    Args:
        in_flight: items between their source and the end, at most.
    """

    def __init__(self, in_flight: int) -> None:
        self._threads: list[threading.Thread] = []
        self._tokens: Channel[None] = Channel(in_flight)
        self._channels: list[Channel[None]] = [self._tokens]
        for _ in range(in_flight):
            self._tokens.put(None)
        # A daemon thread inside an engine or a decoder aborts the process when the interpreter exits.
        self._all: list[threading.Thread] = []
        self._at_exit = weakref.finalize(self, _stop_at_exit, self._channels, self._all)

    def admit(self, source: Iterable[Item]) -> Iterator[Item]:
        """Yield the source's items, each pulled only when there is room for it."""
        items = iter(source)
        while True:
            next(self._tokens)
            try:
                item = next(items)
            except StopIteration:
                return
            yield item
            # Drop our reference so that the item can be freed before the next one is read.
            del item

    def release(self) -> None:
        """Admit another item, because one has reached the end."""
        self._tokens.put(None)

    def ahead(self, items: Iterator[Item], *, size: int = 1, waited_for: bool = True) -> Channel[Item]:
        """Return the same items, made in a separate thread, at most ``size`` ahead of the reader.

        Args:
            items: a step; an error in it is raised in place of its next item.
            size: items that wait for the reader, at most.
            waited_for: False for a thread that the caller's code may block: :meth:`stop` does not join it.
        """
        channel: Channel[Item] = Channel(size)
        thread = threading.Thread(target=_fill, args=(channel, items), name="dim-matting", daemon=True)
        self._channels.append(channel)  # type: ignore[arg-type]
        self._all.append(thread)
        if waited_for:
            self._threads.append(thread)
        thread.start()
        return channel

    def stop(self) -> None:
        """End every thread: immediately if it waits, else after its current item."""
        self._at_exit.detach()
        for channel in self._channels:
            channel.stop()
        for thread in self._threads:
            thread.join()


def _stop_at_exit(channels: list[Channel[None]], threads: list[threading.Thread]) -> None:
    for channel in channels:
        channel.stop()
    end = time.monotonic() + EXIT_SECONDS
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0))


def _fill(channel: Channel[Item], items: Iterator[Item]) -> None:
    try:
        for item in items:
            channel.put(item)
            del item
    except Stopped:
        pass
    except BaseException as error:  # raised again where the items are read
        channel.end(error)
    else:
        channel.end()
