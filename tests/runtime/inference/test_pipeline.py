"""Threads that work ahead: order, bounds, errors in their place, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from dim_runtime.inference.pipeline import Channel, Pipeline, Stopped

WAIT = 60.0
"""Seconds after which a test that waits for a thread fails."""


class Waits:
    """Records when a thread of a pipeline is about to wait at a channel."""

    def __init__(self) -> None:
        self._names: SimpleQueue[str] = SimpleQueue()

    def note(self) -> None:
        name = threading.current_thread().name
        if name == "dim-matting":
            self._names.put(name)

    def next(self) -> None:
        """Return when a thread waits that was not counted before."""
        self._names.get(timeout=WAIT)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    made = Waits()

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            made.note()
            return super().wait(timeout)

    watched = SimpleNamespace(**vars(threading) | {"Condition": Watched})
    monkeypatch.setattr("dim_runtime.inference.pipeline.threading", watched)
    return made


@pytest.fixture
def pipeline(waits: Waits) -> Iterator[Pipeline]:
    made = Pipeline(in_flight=3)
    yield made
    made.stop()


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dim-matting"]


def test_items_keep_their_order_through_several_steps(pipeline: Pipeline) -> None:
    first = pipeline.ahead(iter(range(100)))
    second = pipeline.ahead(2 * item for item in first)
    assert list(second) == list(range(0, 200, 2))


def test_a_step_works_at_most_one_item_ahead(pipeline: Pipeline, waits: Waits) -> None:
    made: list[int] = []

    def step() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            yield item

    items = pipeline.ahead(step())
    # One waits in the channel, the next is made and finds it full.
    waits.next()
    assert made == [0, 1]
    next(items)
    waits.next()
    assert made == [0, 1, 2]


def test_no_more_items_enter_than_there_is_room_for(pipeline: Pipeline, waits: Waits) -> None:
    entered: list[int] = []
    items = pipeline.admit(noted(range(10), entered))
    for _ in range(3):
        next(items)
    blocked = pipeline.ahead(items)
    waits.next()
    assert entered == [0, 1, 2]
    pipeline.release()
    assert next(blocked) == 3


def noted(items: Iterable[int], into: list[int]) -> Iterator[int]:
    for item in items:
        into.append(item)
        yield item


def test_an_error_is_raised_after_the_items_before_it(pipeline: Pipeline) -> None:
    def step() -> Iterator[int]:
        yield from range(3)
        raise ValueError("the fourth")

    items = pipeline.ahead(item for item in pipeline.ahead(step()))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(items)


def test_stopping_ends_threads_that_wait_on_either_side() -> None:
    pipeline = Pipeline(in_flight=2)
    forever = threading.Event()

    def stuck() -> Iterator[int]:
        yield 1
        forever.wait()

    before = len(threads())
    source = pipeline.ahead(stuck(), waited_for=False)
    results = pipeline.ahead(item for item in pipeline.ahead(item for item in source))
    assert next(results) == 1
    pipeline.stop()
    # The thread inside the caller's code continues until that returns.
    assert eventually(lambda: len(threads()) == before + 1)
    forever.set()
    assert eventually(lambda: len(threads()) == before)
    with pytest.raises(Stopped):
        next(results)


def test_ready_tells_without_waiting() -> None:
    channel: Channel[int] = Channel(1)
    assert not channel.ready
    channel.put(1)
    assert channel.ready
    next(channel)
    assert not channel.ready
    channel.end()
    assert channel.ready
