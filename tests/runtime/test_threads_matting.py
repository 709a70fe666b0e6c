"""Threads share one Matting: what they get is what one thread gets."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim_runtime import Matting
from dim_runtime.images.samples import lemur

THREADS, REQUESTS = 8, 200
PATIENCE = 60.0
"""Seconds after which a thread that waits for another fails."""


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


RESIDENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from dim_runtime import Matting
from dim_runtime.images.samples import lemur
from dim_runtime.memory import resident_bytes

threads, requests, limit = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
image, trimap = lemur()
matting, found = Matting(threads=1, memory_limit=limit), []

def request(number):
    height, width = np.random.default_rng(number).integers(64, 320, 2)
    matting(image[:height, 200 : 200 + width].copy(), trimap[:height, 200 : 200 + width].copy())
    found.append(resident_bytes())

request(0)
start = resident_bytes()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(request, range(requests)))
print(start, *found)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is exact on Linux only")
@pytest.mark.parametrize("limit", ["", "450MB"])
def test_resident_memory_does_not_grow_with_the_threads(limit: str) -> None:
    """Sixteen threads hold about what two do; under a limit that one request keeps none is refused."""
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", RESIDENT, "16", "160", limit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    start, *found = map(int, done.stdout.split())
    assert max(found) < start + 250 * 10**6
    assert np.mean(found[-40:]) < 1.1 * np.mean(found[40:80])
