"""Threads share one Matting: what they get is what one thread gets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim_runtime import Matting
from dim_runtime.images.samples import lemur

THREADS, REQUESTS = 8, 200
PATIENCE = 60.0
"""Seconds after which a thread that waits for another fails."""
LOAD = Path(__file__).parents[2] / "tools" / "load_threads.py"


def crops(count: int, largest: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Pieces of the lemur of differing sizes; all differ, so that a swapped result is seen."""
    image, trimap = lemur()
    rng = np.random.default_rng(3)
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(24, largest, 2))
        y, x = int(rng.integers(0, 440 - height)), int(rng.integers(120, 560 - width))
        yield image[y : y + height, x : x + width], trimap[y : y + height, x : x + width]


def in_threads(matting: Matting, pairs: list[Any]) -> list[npt.NDArray[np.float32]]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda pair: matting(*pair), pairs))


@pytest.mark.parametrize("limit", [None, 10**12])
def test_a_fake_engine(local_filter: Any, limit: int | None) -> None:
    pairs = list(crops(REQUESTS, 70))
    matting = Matting.from_backend(local_filter, memory_limit=limit)
    serial = [matting(*pair) for pair in pairs]
    for alpha, expected in zip(in_threads(matting, pairs), serial, strict=True):
        np.testing.assert_array_equal(alpha, expected)


@pytest.mark.slow
def test_the_embedded_model() -> None:
    pytest.importorskip("onnxruntime")
    pairs = list(crops(REQUESTS, 64))
    with Matting(threads=1) as matting:
        serial = [matting(*pair) for pair in pairs]
        together = in_threads(matting, pairs)
    assert len({alpha.tobytes() for alpha in serial}) > 0.9 * REQUESTS
    for alpha, expected in zip(together, serial, strict=True):
        np.testing.assert_array_equal(alpha, expected)


def test_one_call_at_a_time_under_a_memory_limit(identity: Any, pair: Any) -> None:
    """Without a limit two calls meet inside the engine; under one each waits until the other has ended."""
    inside, most, lock = 0, 0, threading.Lock()
    meeting: threading.Barrier | None = threading.Barrier(2)
    compute = identity.alpha

    def alpha(image: Any, trimap: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        if meeting is not None:
            meeting.wait(PATIENCE)
        else:
            # Time for other threads to enter, if they could.
            time.sleep(0.005)
        with lock:
            inside -= 1
        return compute(image, trimap)

    identity.alpha = alpha
    in_threads(Matting.from_backend(identity), [pair(20, 20)] * 24)
    assert most >= 2
    most, meeting = 0, None
    in_threads(Matting.from_backend(identity, memory_limit=10**12), [pair(20, 20)] * 24)
    assert most == 1


def loaded(threads: int, requests: int, *options: str) -> dict[str, Any]:
    """Return the figures of ``tools/load_threads.py``, in a fresh process."""
    command = [sys.executable, str(LOAD), "--json", "--threads", str(threads), "--requests", str(requests)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["requests"] == threads * requests
    return figures


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is exact on Linux only")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_resident_memory_does_not_grow_with_the_threads(engine: str) -> None:
    """Sixteen threads hold about what one does, and no more at the end than at the start.

    A thread that calls ONNX Runtime itself keeps about 60 MB, which is 900 MB of sixteen.
    """
    pytest.importorskip(engine)
    figures = loaded(16, 12, "--largest", "192", "--backend", engine)
    assert not figures["failures"]
    assert figures["different"] == 0
    assert figures["largest_mb"] < figures["alone_mb"] + 200
    first, *_, last = figures["quarters_mb"]
    assert last < 1.15 * first


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is exact on Linux only")
def test_under_a_memory_limit_no_request_is_refused_that_fits_alone() -> None:
    pytest.importorskip("onnxruntime")
    alone = loaded(1, 4, "--largest", "192")["largest_mb"]
    figures = loaded(16, 12, "--largest", "192", "--memory-limit", f"{alone + 100:.0f}MB")
    assert not figures["failures"]
    assert figures["different"] == 0
