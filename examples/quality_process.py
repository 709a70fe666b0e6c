"""One method on one photograph, in its own process: measure_quality.py starts this file with a task.

Result and alpha are written into the task's output folder. A result remembers all that it depends on; one
that is there and still true is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median

from quality_methods import Method, installed, opened

from dim import trimap as trimaps
from dim.arrays import UInt8
from dim.errors import DimError
from dim.files import sha256, write_text
from dim.frozen_model import FrozenModel
from dim.images import read_alpha
from dim.images.files import write_image
from dim.metrics import Metrics
from dim_runtime.images.samples import lemur
from dim_runtime.memory import peak_resident_bytes, resident_bytes
from dim_training.data.files import read_rgb
from dim_training.scoring.scores import Region, score

WARM_UP = slice(60, 188), slice(200, 360)
"""Rows and columns of the lemur's photograph with known and unknown pixels of both kinds."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Task(FrozenModel):
    """A measurement to make.

    Attributes:
        truth: true alpha; None where nobody knows it.
        runs: calls after the first one.
        threads: of each method; None leaves the choice to it.
        output: folder of the method's results.
    """

    name: str
    method: Method
    image: Path
    trimap: Path
    truth: Path | None
    runs: int
    threads: int | None
    output: Path

    @property
    def alpha_file(self) -> Path:
        return self.output / f"{self.name}.png"

    @property
    def result_file(self) -> Path:
        return self.output / f"{self.name}.json"

    def key(self) -> str:
        """Return a digest of all that the result depends on: content of files, versions, options."""
        files = (self.image, self.trimap, self.truth, self.method.file)
        method = self.method.model_dump(exclude={"checkpoint", "artefact"})
        parts = [[file and _digest(file) for file in files], method, self.runs, self.threads, installed()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Result(FrozenModel):
    """Result of a measurement.

    Attributes:
        metrics: over unknown pixels; None without a truth.
        first_s: the first call at this size, after one on 128 × 160 pixels.
        seconds: of the calls after it.
        held_bytes: resident memory before the first call: libraries, model, photograph.
        peak_bytes: highest resident memory from then until the last call's end.
    """

    key: str
    megapixels: float
    metrics: Metrics | None
    first_s: float
    seconds: tuple[float, ...]
    held_bytes: int
    peak_bytes: int

    @property
    def p50_s(self) -> float:
        """Median of the calls after the first; of the first where there are none."""
        return median(self.seconds or (self.first_s,))

    @property
    def own_bytes(self) -> int:
        """Bytes that the photograph's alpha took on top of what was held."""
        return self.peak_bytes - self.held_bytes


def result_of(task: Task) -> Result:
    """Return the stored result, or compute it; exit if the process of the task fails."""
    with suppress(FileNotFoundError, ValueError):
        found = Result.model_validate_json(task.result_file.read_text("utf-8"))
        if found.key == task.key():
            return found
    threads = dict.fromkeys(THREADS, str(task.threads)) if task.threads else {}
    command = [sys.executable, __file__, task.model_dump_json()]
    if subprocess.run(command, env={**os.environ, **threads}, check=False).returncode:
        sys.exit(f"failed: {task.method.name} on {task.name}; what is measured already is kept")
    return Result.model_validate_json(task.result_file.read_text("utf-8"))


def measure(task: Task) -> tuple[UInt8, Result]:
    """Return alpha and result. The peak is the process's: call this once in each process."""
    image, trimap = read_rgb(task.image), trimaps.read(task.trimap).trimap
    with opened(task.method, task.threads) as predictor:
        predictor(*(array[WARM_UP] for array in lemur()))
        _forget_peak()
        held = resident_bytes()
        alpha, first = _timed(lambda: predictor(image, trimap))
        seconds = tuple(_timed(lambda: predictor(image, trimap))[1] for _ in range(task.runs))
        peak = peak_resident_bytes()
    metrics = None
    if task.truth is not None:
        metrics = score(task.name, alpha, read_alpha(task.truth), trimap, region=Region.UNKNOWN).metrics
    return alpha, Result(
        key=task.key(),
        megapixels=trimap.size / 1e6,
        metrics=metrics,
        first_s=first,
        seconds=seconds,
        held_bytes=held,
        peak_bytes=peak,
    )


def _timed(run: Callable[[], UInt8]) -> tuple[UInt8, float]:
    started = time.perf_counter()
    alpha = run()
    return alpha, time.perf_counter() - started


def _forget_peak() -> None:
    """Reset the peak where the system can (Linux); elsewhere it is the whole process's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


_digest = cache(sha256)


def main() -> None:
    task = Task.model_validate_json(sys.argv[1])
    try:
        alpha, result = measure(task)
        write_image(task.alpha_file, alpha)
        write_text(task.result_file, result.model_dump_json(indent=2) + "\n")
    except DimError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
