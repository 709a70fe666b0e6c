"""One window through ONNX Runtime against the same window through PyTorch, in alternation."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, computed_field

from dim import checkpoint
from dim.contract import STRIDE
from dim.errors import InputError
from dim_export.to_onnx import export
from dim_export.torch_backend import TorchBackend
from dim_runtime.backends.base import Backend, UInt8
from dim_runtime.backends.opening import open_backend


class WindowBench(BaseModel):
    """Seconds of every run of both engines, in the order of the pairs."""

    model_config = ConfigDict(frozen=True)

    size: int
    """Side of the square window, pixels."""
    gflop: float
    threads: int
    torch_s: tuple[float, ...]
    onnxruntime_s: tuple[float, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def torch_p50_s(self) -> float:
        return median(self.torch_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def onnxruntime_p50_s(self) -> float:
        return median(self.onnxruntime_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratio(self) -> float:
        """Median over the pairs of PyTorch's time over ONNX Runtime's: above 1, ONNX Runtime is faster.

        Not the ratio of the medians: where the machine's load changes during the run, these may be of
        different moments; the two runs of a pair are of the same.
        """
        return median(slow / fast for slow, fast in zip(self.torch_s, self.onnxruntime_s, strict=True))


def bench_checkpoint(path: Path, *, size: int, pairs: int, threads: int | None = None) -> WindowBench:
    """Export a checkpoint to a temporary file and time it against PyTorch eager, channels_last.

    Args:
        threads: of both engines; None takes PyTorch's number for both.
    """
    _require_measurable(size, pairs)
    count = threads or torch.get_num_threads()
    torch.set_num_threads(count)
    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder) / "model.onnx"
        export(path, artefact)
        engine = open_backend(artefact, threads=count)
    eager = TorchBackend(checkpoint.load(path), channels_last=True)
    return compare_speed(eager, engine, size=size, pairs=pairs, threads=count)


def compare_speed(eager: Backend, engine: Backend, *, size: int, pairs: int, threads: int) -> WindowBench:
    """Time both engines on one random window, in turn, so that what else the machine does hits both alike.

    Args:
        size: side of the square window, a multiple of 32 pixels.
        pairs: timed runs of each; one run of each before them is not counted.
        threads: what both engines were told to use, for the record.
    """
    _require_measurable(size, pairs)
    image, trimap = _window(size)
    runs = [(_seconds(eager, image, trimap), _seconds(engine, image, trimap)) for _ in range(pairs + 1)]
    counted = runs[1:]
    return WindowBench(
        size=size,
        gflop=2e-9 * eager.metadata.multiply_adds_per_pixel * size * size,
        threads=threads,
        torch_s=tuple(pair[0] for pair in counted),
        onnxruntime_s=tuple(pair[1] for pair in counted),
    )


def _require_measurable(size: int, pairs: int) -> None:
    if size < STRIDE or size % STRIDE or pairs < 1:
        raise InputError(
            "cannot measure this",
            got=f"a window of {size} px, {pairs} pairs",
            expected=f"a positive multiple of {STRIDE} px, and 1 pair or more",
        )


def _window(size: int) -> tuple[UInt8, UInt8]:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    return image, draw.choice(np.array([0, 128, 255], np.uint8), (1, size, size))


def _seconds(backend: Backend, image: UInt8, trimap: UInt8) -> float:
    start = time.perf_counter()
    backend.run(image, trimap)
    return time.perf_counter() - start
