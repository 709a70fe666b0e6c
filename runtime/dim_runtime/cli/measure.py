"""Measure the speed of a Matting on one image, beside the machine's ceiling and eager PyTorch."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import computed_field

from dim.arrays import Image, UInt8
from dim.contract import ArtefactMetadata, NetworkConfig
from dim.errors import DimError, install_command
from dim.frozen_model import FrozenModel
from dim_runtime.matting import Matting
from dim_runtime.memory import peak_resident_bytes

CEILING_SIDE = 2048
"""Side of the square matrices whose product measures the machine's ceiling."""
CEILING_RUNS = 5


class BenchError(DimError):
    """A measurement that could not be made."""


class Against(FrozenModel):
    """The measurement of the same image with another implementation of the network."""

    name: str
    seconds: tuple[float, ...]
    peak_bytes: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


class Bench(FrozenModel):
    """One image, several runs.

    Attributes:
        opening_s: seconds to open the model.
        first_s: duration of the first call, in which engines compile and allocate.
        seconds: duration of each further run, planning and stitching included, without files.
        plan_seconds: duration of planning alone.
        cost: multiply-adds of all windows over the whole image's.
        work: multiply-adds of one run.
        peak_bytes: peak of this process meanwhile, the image and the model included.
        ceiling_gflops: speed of a product of float32 matrices on all cores; None if not measured.
    """

    model: str
    backend: str
    device: str
    precision: str
    height: int
    width: int
    windows: int
    context: int
    exact: bool
    cost: float
    work: float
    opening_s: float
    first_s: float
    seconds: tuple[float, ...]
    plan_seconds: float
    peak_bytes: int
    ceiling_gflops: float | None = None
    against: Against | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p95_s(self) -> float:
        """Seconds that 95 of 100 runs stay below."""
        return float(np.percentile(self.seconds, 95))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def megapixels_per_s(self) -> float:
        """Megapixels of the image, not of the windows, per second."""
        return self.height * self.width / 1e6 / self.p50_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gflops(self) -> float:
        """Work that was done, two operations for each multiply-add, per second."""
        return 2 * self.work / 1e9 / self.p50_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share_of_ceiling(self) -> float | None:
        """Speed over that of a product of large matrices; None if that was not measured."""
        return None if self.ceiling_gflops is None else self.gflops / self.ceiling_gflops

    @computed_field  # type: ignore[prop-decorator]
    @property
    def speedup(self) -> float | None:
        """Median of the other implementation over this one's; None without another."""
        return None if self.against is None else self.against.p50_s / self.p50_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def memory_share(self) -> float | None:
        """Peak memory over the other implementation's; None on a GPU, whose memory is not measured."""
        if self.against is None or self.device != "cpu":
            return None
        return self.peak_bytes / self.against.peak_bytes


def measure(
    matting: Matting, image: Image, trimap: UInt8, *, runs: int, opening_s: float, about: dict[str, str]
) -> Bench:
    """Time the first call of a new matting, and ``runs`` further ones.

    Args:
        opening_s: seconds that opening the model took.
        about: ``model``, ``backend`` and ``device`` as the report names them, and ``precision``.
    """
    first_s = timed(lambda: matting(image, trimap))
    # The first plan also tries how fast the network is here.
    plan = matting.plan(trimap)
    plan_seconds = timed(lambda: matting.plan(trimap))
    seconds = tuple(timed(lambda: matting(image, trimap)) for _ in range(runs))
    return Bench(
        **about,
        height=trimap.shape[0],
        width=trimap.shape[1],
        windows=len(plan.windows),
        context=plan.context,
        exact=plan.exact,
        cost=plan.cost,
        work=plan.area * matting.metadata.multiply_adds_per_pixel,
        opening_s=opening_s,
        first_s=first_s,
        seconds=seconds,
        plan_seconds=plan_seconds,
        peak_bytes=peak_resident_bytes(),
    )


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def matrix_ceiling() -> float:
    """Measure the GFLOP/s of a product of two large float32 matrices on all cores: the best of a few runs."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((CEILING_SIDE, CEILING_SIDE), np.float32) for _ in range(2))
    best = min(timed(lambda: a @ b) for _ in range(CEILING_RUNS))
    return float(2 * CEILING_SIDE**3 / best / 1e9)


def eager_command(network: NetworkConfig, height: int, width: int, *, runs: int) -> list[str]:
    """Return the command that times a network of random weights on a whole image in PyTorch."""
    command = [sys.executable, "-m", "dim_export.bench.eager_baseline", str(height), str(width)]
    command += ["--stage", str(network.stage), "--width", str(network.width), "--runs", str(runs)]
    command += ["--batch-norm"] if network.batch_norm else []
    for name, values in (("cue-radii", network.cue_radii), ("propagation-steps", network.propagation_steps)):
        command += [f"--{name}", *map(str, values)] if values else []
    command += ["--propagates-light"] if network.propagates_light else []
    command += ["--hardens-ends"] if network.hardens_ends else []
    command += ["--lifts-shadows"] if network.lifts_shadows else []
    return command + (["--sharpens"] if network.sharpens else [])


def eager_pytorch(
    metadata: ArtefactMetadata, height: int, width: int, *, runs: int, device: str = "cpu"
) -> Against:
    """Time the whole image in eager PyTorch, in a separate process (:mod:`dim_export.bench.eager_baseline`).

    Raises:
        BenchError: PyTorch is not installed or does not find the device, or the memory is too small.
    """
    place = "" if device == "cpu" else f" on {device}"
    command = [*eager_command(metadata.network, height, width, runs=runs), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            f"cannot run the whole image in eager PyTorch{place}",
            got=_last_line(done.stderr) or f"exit status {done.returncode}",
            why="PyTorch is not installed, has no such device, or the memory does not hold the image's maps",
            fix=f"{install_command('export')}; a smaller image; or leave out --against",
        )
    found = json.loads(done.stdout)
    place = place or f", {found['threads']} threads"
    name = f"eager PyTorch {found['torch']}, whole image, fp32{place}"
    return Against(name=name, seconds=tuple(found["seconds"]), peak_bytes=found["peak_bytes"])


def model_name(model: str | Path | None) -> str:
    """Return a model's name for reports."""
    return "the embedded model" if model is None else Path(model).name


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
