"""Two small windows at one time: the same alpha, counted memory, and nothing beside what runs alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from dim.arrays import UInt8
from dim_runtime import Matting
from dim_runtime.backends import openvino
from dim_runtime.backends.open import default_model
from dim_runtime.backends.openvino import OpenVinoBackend
from dim_runtime.backends.openvino_streams import STREAMS, Turns, is_balanced
from dim_runtime.errors import BackendError
from dim_runtime.images.samples import lemur
from dim_runtime.memory import release_free_memory

pytest.importorskip("openvino")


@pytest.fixture
def pair() -> tuple[UInt8, UInt8]:
    image, trimap = lemur()
    return np.ascontiguousarray(image[:640, :640]), np.ascontiguousarray(trimap[:640, :640])


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenVinoBackend]:
    """Yield a back end that uses streams for little work too."""
    monkeypatch.setattr(openvino, "WORTHWHILE_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(openvino, "is_balanced", lambda work: len(work) > 1)
    made = OpenVinoBackend(default_model(), threads=2)
    yield made
    made.close()


def test_windows_run_two_at_a_time_and_give_the_same_alpha(
    backend: OpenVinoBackend, pair: tuple[UInt8, UInt8]
) -> None:
    matting = Matting.from_backend(backend, tile=256, context=64)
    assert matting.plan(pair[1]).in_flight == STREAMS
    at_once, most = 0, 0
    infer = backend._infer

    def counted(*given: object) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return infer(*given)  # type: ignore[arg-type]
        finally:
            at_once -= 1

    backend._infer = counted  # type: ignore[assignment, method-assign]
    alpha = matting(*pair)
    assert most == STREAMS
    with Matting(backend="openvino", threads=1, tile=256, context=64) as alone:
        assert alone.plan(pair[1]).in_flight == 1
        np.testing.assert_allclose(alpha, alone(*pair), rtol=0, atol=1e-5)
    # Streams of images make one call at a time, on all threads; so does a call that belongs to no plan.
    most = 0
    assert np.abs(next(iter(matting.map([pair]))) - alpha).max() < 1e-5
    assert most == 1
    matting(*pair)
    assert backend._at_once == 1


def test_a_plan_counts_the_memory_of_both(backend: OpenVinoBackend, pair: tuple[UInt8, UInt8]) -> None:
    matting = Matting.from_backend(backend, tile=256, context=64)
    plan = matting.plan(pair[1])
    largest = plan.windows[0]
    backend.calls_at_once = lambda shapes: 1  # type: ignore[method-assign]
    alone = matting.plan(pair[1]).peak_bytes
    assert plan.peak_bytes - alone > backend.window_bytes(largest.height, largest.width)
    first = backend.further_bytes(largest.height, largest.width)
    del backend.calls_at_once  # type: ignore[method-assign]
    matting(*pair)
    # What the graphs keep from then on is resident: a further plan does not count it again.
    assert backend.further_bytes(largest.height, largest.width) < first


def test_one_thread_large_windows_and_little_work_have_no_streams(pair: tuple[UInt8, UInt8]) -> None:
    many = [(256, 256)] * 1000
    for options, expected in (
        ({"threads": 2}, STREAMS),
        ({"threads": 1}, 1),
        ({"threads": 2, "free_pixels": 0}, 1),
    ):
        backend = OpenVinoBackend(default_model(), **options)  # type: ignore[arg-type]
        assert backend.calls_at_once(many) == expected
        assert backend.calls_at_once([(256, 256)] * 4) == 1
        backend.close()


def test_streams_are_for_windows_that_end_together() -> None:
    assert is_balanced([1, 1])
    assert is_balanced([3, 2, 2, 1])
    assert is_balanced([100, 99, 1, 1])
    assert not is_balanced([1])
    assert not is_balanced([2, 1])
    assert not is_balanced([1, 1, 1])
    assert not is_balanced([0])


def test_nothing_runs_beside_what_runs_alone() -> None:
    turns, running, seen = Turns(), [0, 0], []
    lock = threading.Lock()

    def work(alone: bool) -> None:
        with turns.alone() if alone else turns.beside_others():
            with lock:
                running[alone] += 1
                seen.append(tuple(running))
            threading.Event().wait(0.001)
            with lock:
                running[alone] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [number % 3 == 0 for number in range(60)]))
    assert len(seen) == 60
    assert set(seen) <= {(0, 1), (1, 0), (2, 0)}
    assert (2, 0) in seen


def test_an_error_gives_its_turn_back() -> None:
    turns = Turns()
    for turn in (turns.alone, turns.beside_others):
        with pytest.raises(RuntimeError), turn():
            raise RuntimeError
    with turns.alone():
        pass


def test_kept_memory_is_returned_under_a_limit(backend: OpenVinoBackend, pair: tuple[UInt8, UInt8]) -> None:
    process = psutil.Process()
    matting = Matting.from_backend(backend, tile=256, context=64)
    first = backend.further_bytes(256, 256)
    alpha = matting(*pair)
    assert backend.further_bytes(256, 256) < first
    before = process.memory_info().rss
    backend.release_memory()
    release_free_memory()
    # What the plan counts as kept is released. A third may stay: OpenVINO keeps kernels and code.
    assert before - process.memory_info().rss > STREAMS * backend._kept_bytes(256 * 256) // 3
    assert backend.further_bytes(256, 256) > first - STREAMS * 10**8
    np.testing.assert_array_equal(matting(*pair), alpha)


@pytest.mark.parametrize(("limit", "kept"), [(None, True), (10**12, False)])
def test_memory_is_kept_for_further_images_without_a_limit_alone(
    pair: tuple[UInt8, UInt8], limit: int | None, kept: bool
) -> None:
    """Kept memory would count as held by the process: each further plan would have a smaller tile."""
    backend = OpenVinoBackend(default_model(), threads=1)
    Matting.from_backend(backend, tile=256, context=64, memory_limit=limit)(*pair)
    assert (backend._widest > 0) is kept
    # Kernels stay in both cases, and are not counted twice.
    assert backend._has_kernels
    backend.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_closing_during_a_call_is_an_error(pair: tuple[UInt8, UInt8], threads: int) -> None:
    backend = OpenVinoBackend(default_model(), threads=threads)
    matting = Matting.from_backend(
        backend, tile=256, context=64, progress=lambda done, total: backend.close()
    )
    with pytest.raises(BackendError, match="it was closed"):
        matting(*pair)
    with pytest.raises(BackendError, match="it was closed"):
        backend.expect([], at_once=STREAMS)
