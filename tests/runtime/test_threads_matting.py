"""Threads share one Matting: what they get is what one thread gets."""

from __future__ import annotations

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
    running, most = 0, 0
    compute = identity.alpha

    def alpha(image: Any, trimap: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.005)
        result = compute(image, trimap)
        running -= 1
        return result

    identity.alpha = alpha
    matting = Matting.from_backend(identity, memory_limit=10**12)
    in_threads(matting, [pair(20, 20)] * 24)
    assert most == 1
    in_threads(Matting.from_backend(identity), [pair(20, 20)] * 24)
    assert most > 1
