"""Threads that work on one stream of items, each a step ahead of the next, through bounded queues.

Every step is a plain generator over the step before it; :meth:`Pipeline.ahead` moves it into a thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Stopped(Exception):  # noqa: N818 - a signal, not an error: it never leaves this module's threads
    """The pipeline was stopped while a thread waited."""


class Channel(Generic[Item]):
    """A bounded queue between two threads, which ends, fails or is stopped.

    Args:
        size: items that wait at most; a full channel makes the writer wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Append an item when there is room; Stopped if there never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._size)
            self._require_running()
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; an error is raised by the reader after the items before it."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake both sides; what waits is dropped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """Whether the reader would get something, or the end, at once."""
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
    """The threads and channels of one stream; all stop together.

    Args:
        in_flight: items between their source and the end, at most.
    """

    def __init__(self, in_flight: int) -> None:
        self._threads: list[threading.Thread] = []
        self._tokens: Channel[None] = Channel(in_flight)
        self._channels: list[Channel[None]] = [self._tokens]
        for _ in range(in_flight):
            self._tokens.put(None)

    def admit(self, source: Iterable[Item]) -> Iterator[Item]:
        """The source's items, each pulled only when there is room for it."""
        items = iter(source)
        while True:
            next(self._tokens)
            try:
                item = next(items)
            except StopIteration:
                return
            yield item
            # Or this frame would keep it alive until the next one is there.
            del item

    def release(self) -> None:
        """One item has reached the end: another may enter."""
        self._tokens.put(None)

    def ahead(self, items: Iterator[Item], *, waited_for: bool = True) -> Channel[Item]:
        """The same items, made in a thread of their own, at most one before it is wanted.

        Args:
            items: a step; an error in it is raised where its next item would be.
            waited_for: False for a thread that may be held up by somebody else's code: it ends by itself.
        """
        channel: Channel[Item] = Channel(1)
        thread = threading.Thread(target=_fill, args=(channel, items), name="dim-matting", daemon=True)
        self._channels.append(channel)  # type: ignore[arg-type]
        if waited_for:
            self._threads.append(thread)
        thread.start()
        return channel

    def stop(self) -> None:
        """End every thread: at once where it waits, else after the item that it works on."""
        for channel in self._channels:
            channel.stop()
        for thread in self._threads:
            thread.join()


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
