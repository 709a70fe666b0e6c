"""Several threads on one back end, and the memory that one window takes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from dim_runtime.backends.open import default_model, open_backend

ENGINES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("name", ENGINES)
def test_eight_threads_give_what_one_gives(name: Any) -> None:
    pytest.importorskip(name)
    backend = open_backend(default_model(), backend=name, threads=2)
    draw = np.random.default_rng(0)
    shapes = [(1, 32, 32), (1, 64, 32), (2, 32, 32), (1, 32, 64)]
    windows = [
        (draw.integers(0, 256, (*shape, 3), np.uint8), draw.integers(0, 256, shape, np.uint8))
        for shape in shapes
    ]
    expected = [backend.run(*window) for window in windows]
    requests = [number % len(windows) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: backend.run(*windows[number]), requests))
    for number, alpha in zip(requests, found, strict=True):
        np.testing.assert_array_equal(alpha, expected[number])


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from dim_runtime.backends.open import open_backend
from dim_runtime.backends.open import default_model
from dim_runtime.memory import peak_resident_bytes, resident_bytes

backend = open_backend(default_model(), backend=sys.argv[1], threads=2)
image = np.random.default_rng(0).integers(0, 256, (1, 768, 768, 3), np.uint8)
trimap = np.full((1, 768, 768), 128, np.uint8)
held = resident_bytes()
stated = held + backend.window_bytes(768, 768)
backend.run(image, trimap)
print(stated, peak_resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is exact on Linux only")
@pytest.mark.parametrize("name", ENGINES)
def test_the_stated_memory_is_a_close_upper_bound(name: str) -> None:
    """Of the process, after opening: for a window of 0.6 megapixels of the embedded network."""
    pytest.importorskip(name)
    done = subprocess.run([sys.executable, "-c", MEASURE, name], capture_output=True, text=True, check=True)
    stated, peak = map(int, done.stdout.split())
    assert peak <= stated <= 1.35 * peak
