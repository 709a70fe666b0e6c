"""Time one window in ONNX Runtime and in PyTorch, in alternation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import torch
from pydantic import computed_field

from dim import checkpoint
from dim.contract import STRIDE
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_export.graph.torch_backend import TorchBackend
from dim_export.measure.timing import alternate, is_side, random_window, times_faster
from dim_export.onnx_export.export import export
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import open_backend


class WindowBench(FrozenModel):
    """Times of both engines, in the order of the pairs."""

    size: int
    """Side of the square window, pixels."""
    gflop: float
    """Floating-point operations of one window, in 10⁹."""
    threads: int
    torch_s: tuple[float, ...]
    onnxruntime_s: tuple[float, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def torch_p50_s(self) -> float:
        """PyTorch's median, seconds."""
        return median(self.torch_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def onnxruntime_p50_s(self) -> float:
        """ONNX Runtime's median, seconds."""
        return median(self.onnxruntime_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratio(self) -> float:
        """PyTorch's time over ONNX Runtime's, median over the pairs: above 1, ONNX Runtime is faster."""
        return times_faster(self.torch_s, self.onnxruntime_s)


def bench_checkpoint(path: Path, *, size: int, pairs: int, threads: int | None = None) -> WindowBench:
    """Export a checkpoint to a temporary file and time it against PyTorch eager, channels_last.

    Args:
        path: checkpoint.
        size: side of the square window, a multiple of 32 pixels.
        pairs: timed runs of each; one run of each before them is not timed.
        threads: threads of both engines; None takes PyTorch's default for both.
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
    """Time both engines on one random window, in alternation.

    Args:
        size: side of the square window, a multiple of 32 pixels.
        pairs: timed runs of each; one run of each before them is not timed.
        threads: number of threads that both engines use, for the record.
    """
    _require_measurable(size, pairs)
    eager_s, engine_s = alternate((eager, engine), [random_window(size, size)] * 2, pairs)
    return WindowBench(
        size=size,
        gflop=2e-9 * eager.metadata.multiply_adds_per_pixel * size * size,
        threads=threads,
        torch_s=tuple(eager_s),
        onnxruntime_s=tuple(engine_s),
    )


def _require_measurable(size: int, pairs: int) -> None:
    if not is_side(size) or pairs < 1:
        raise InputError(
            "cannot measure a window of this size",
            got=f"a window of {size} px, {pairs} pairs",
            expected=f"a positive multiple of {STRIDE} px, and 1 pair or more",
        )
