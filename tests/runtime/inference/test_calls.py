"""Several calls of a back end at one time: they overlap, and the alpha is that of one at a time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from dim.arrays import Floating, UInt8
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend, fake_metadata, red_channel
from dim_runtime.backends.threads import Calls

TOGETHER = 3
PATIENCE = 60.0
"""Seconds after which a test that would wait forever fails."""


class Overlapping(FakeBackend):
    """Alpha is the red channel. The first calls wait for each other at ``meeting``."""

    def __init__(self, in_flight: int = TOGETHER, meeting: threading.Barrier | None = None) -> None:
        super().__init__(fake_metadata(context=32))
        self._in_flight, self._meeting = in_flight, meeting
        self._lock = threading.Lock()
        self._running = self.most = 0
        self._coming = TOGETHER

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def window_bytes(self, height: int, width: int) -> int:
        return 10**6

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
            meeting, self._coming = self._coming > 0, self._coming - 1
        try:
            if meeting and self._meeting is not None:
                self._meeting.wait(PATIENCE)
            return super().run(image, trimap)
        finally:
            with self._lock:
                self._running -= 1


def picture(width: int = 640) -> tuple[UInt8, UInt8]:
    """Unknown everywhere: a tile of 128 and a context of 32 cut it into several windows."""
    image = np.random.default_rng(0).integers(0, 256, (64, width, 3), np.uint8)
    return image, np.full((64, width), 128, np.uint8)


@pytest.mark.parametrize("context", ["exact", 0])
def test_calls_overlap_and_the_alpha_is_the_same(context: Any) -> None:
    image, trimap = picture()
    together = Overlapping(meeting=threading.Barrier(TOGETHER))
    alpha = Matting.from_backend(together, tile=128, context=context)(image, trimap)
    alone = Overlapping(1)
    expected = Matting.from_backend(alone, tile=128, context=context)(image, trimap)
    np.testing.assert_array_equal(alpha, expected)
    assert (together.most, alone.most) == (TOGETHER, 1)
    assert sorted(together.shapes) == sorted(alone.shapes)


def test_blended_windows_are_added_in_the_order_of_the_plan() -> None:
    """Rounded sums depend on their order: the first window is the last to be computed."""
    image, trimap = picture()
    first = threading.Event()
    count = 0

    def late(image: UInt8, trimap: UInt8) -> Floating:
        nonlocal count
        count += 1
        if count == 1:
            assert first.wait(PATIENCE)
        elif count == TOGETHER:
            first.set()
        return red_channel(image, trimap)

    # An artefact of a large context, used with 32 px: windows overlap and are blended.
    metadata = fake_metadata(context=192)
    late_backend, usual = Overlapping(), Overlapping(1)
    late_backend.alpha, late_backend._metadata, usual._metadata = late, metadata, metadata
    alphas = [
        Matting.from_backend(backend, tile=128, context=32)(image, trimap)
        for backend in (late_backend, usual)
    ]
    assert count >= 2 * TOGETHER
    np.testing.assert_array_equal(*alphas)


def test_windows_of_several_images_overlap() -> None:
    together = Overlapping(meeting=threading.Barrier(TOGETHER))
    pairs = [picture(64 * (1 + index)) for index in range(TOGETHER)]
    found = list(Matting.from_backend(together, tile=128).map(pairs))
    for alpha, (image, _) in zip(found, pairs, strict=True):
        np.testing.assert_array_equal(alpha, (image[..., 0] / np.float64(255)).astype(np.float32))
    assert together.most == TOGETHER


def test_an_error_of_one_call_ends_the_others_and_their_threads() -> None:
    def fail(image: UInt8, trimap: UInt8) -> Floating:
        raise RuntimeError("the server is on fire")

    backend = Overlapping()
    backend.alpha = fail
    matting = Matting.from_backend(backend, tile=128)
    with pytest.raises(RuntimeError, match="on fire"):
        matting(*picture())
    with pytest.raises(RuntimeError, match="on fire"):
        list(matting.map([picture()]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dim-matting")]
    backend.alpha = red_channel
    assert matting(*picture()).max() <= 1


def test_the_plan_counts_the_memory_of_all_windows_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dim_runtime.matting.resident_bytes", lambda: 10**8)
    _, trimap = picture()
    one = Matting.from_backend(Overlapping(1), tile=128).plan(trimap)
    three = Matting.from_backend(Overlapping(), tile=128).plan(trimap)
    assert (one.in_flight, three.in_flight) == (1, TOGETHER)
    assert three.peak_bytes - one.peak_bytes == 2 * 10**6
    assert Matting.from_backend(Overlapping(), tile=128).plan(trimap[:, :64]).in_flight == 1


def test_a_memory_limit_decides_how_many_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    from dim_runtime import matting as module

    monkeypatch.setattr(module, "resident_bytes", lambda: 10**8)
    image, trimap = picture()
    one = Matting.from_backend(Overlapping(1), tile=128).plan(trimap).peak_bytes
    for room, expected in ((0, 1), (10**6 - 1, 1), (10**6, 2), (10**9, TOGETHER)):
        backend = Overlapping()
        matting = Matting.from_backend(backend, tile=128, memory_limit=one + room)
        plan = matting.plan(trimap)
        assert plan.in_flight == expected
        assert plan.peak_bytes <= one + room
        matting(image, trimap)
        assert backend.most <= expected


def test_one_call_at_a_time_runs_in_the_callers_thread() -> None:
    with Calls(1) as calls:
        assert calls.start(threading.current_thread)() is threading.current_thread()
    with Calls(2) as calls:
        assert calls.start(threading.current_thread)() is not threading.current_thread()
