"""One pair of files in, one file out: what ``dim-matte run`` does for each image."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import dim.trimap
from dim.arrays import Float32, Image, UInt8
from dim.images.files import read_photograph, write_image
from dim.images.metadata import Metadata
from dim_runtime.errors import MemoryLimitError, TrimapWarning
from dim_runtime.images.pairs import Pair, require_one_size
from dim_runtime.matting import Matting
from dim_runtime.memory import format_bytes, peak_resident_bytes
from dim_runtime.outputs.render import kept_metadata, render, require_room, whole_bytes
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.outputs.stream_tiff import plan_streamed, run_streamed, streams
from dim_runtime.planning.geometry import Plan


@dataclass(frozen=True)
class Outcome:
    """The result of one pair.

    Attributes:
        plan: what was run.
        seconds: time of planning and of the windows.
        total_seconds: the same with reading, rendering and writing.
        peak_bytes: peak resident memory of the process.
    """

    plan: Plan
    seconds: float
    total_seconds: float
    peak_bytes: int

    def summary(self) -> str:
        """Describe size, time, plan and memory in one line."""
        megapixels = self.plan.height * self.plan.width / 1e6
        return (
            f"{self.plan.width}×{self.plan.height} px in {self.seconds:.2f} s, "
            f"{megapixels / self.seconds:.2f} megapixels/s ({self.total_seconds:.2f} s with reading, "
            f"rendering and writing); {describe(self.plan)}; "
            f"peak {format_bytes(self.peak_bytes)}"
        )


def describe(plan: Plan) -> str:
    """Describe windows, cost, and planned peak memory of a plan in one line."""
    count = len(plan.windows)
    context = "exact" if plan.exact else f"context {plan.context} px"
    text = f"{count} window{'' if count == 1 else 's'}, cost {plan.cost:.2f}, {context}, "
    text += f"planned peak {format_bytes(plan.peak_bytes)}"
    if plan.seconds is not None:
        text += f", about {plan.seconds:.1f} s"
    return text if plan.note is None else f"{text} ({plan.note})"


def run_pair(matting: Matting, image_path: Path, trimap_path: Path, out: Path, spec: OutputSpec) -> Outcome:
    """Matte one pair of files and write the result; a DimError leaves no file behind."""
    spec.require_writable(out)
    started = time.perf_counter()
    run = run_streamed if streams(image_path, trimap_path, out) else _run_in_memory
    plan, seconds = run(matting, image_path, trimap_path, out, spec)
    return Outcome(plan, seconds, time.perf_counter() - started, peak_resident_bytes())


def _run_in_memory(
    matting: Matting, image_path: Path, trimap_path: Path, out: Path, spec: OutputSpec
) -> tuple[Plan, float]:
    """Return the plan, and the seconds of planning and windows."""
    loaded = load(image_path, trimap_path, spec)
    _require_memory(matting, loaded, spec)
    started = time.perf_counter()
    alpha = np.empty(loaded.trimap.shape, np.float32)
    plan = matting.into(loaded.image, loaded.trimap, alpha)
    seconds = time.perf_counter() - started
    save(out, loaded, alpha, spec)
    return plan, seconds


def _require_memory(matting: Matting, loaded: Loaded, spec: OutputSpec) -> None:
    """Raise the MemoryLimitError of the step that takes most, so that the stated limit holds for all."""
    try:
        require_room(matting.memory_limit, spec, held=whole_bytes(spec, loaded.image))
    except MemoryLimitError as rendering:
        try:
            matting.plan(loaded.trimap)
        except MemoryLimitError as planning:
            raise max(rendering, planning, key=lambda error: error.minimum) from None
        raise


def plan_pair(matting: Matting, image_path: Path, trimap_path: Path, out: Path, spec: OutputSpec) -> Plan:
    """Return the plan that :func:`run_pair` would run; raise what it would raise before the first window."""
    spec.require_writable(out)
    if streams(image_path, trimap_path, out):
        return plan_streamed(matting, image_path, trimap_path, spec)
    loaded = load(image_path, trimap_path, spec)
    _require_memory(matting, loaded, spec)
    return matting.plan(loaded.trimap)


class Loaded(NamedTuple):
    """One pair in memory.

    Attributes:
        image: uint8 or uint16 H, W, 3, RGB.
        trimap: canonical, uint8 H, W.
        metadata: what the result keeps of the image file.
    """

    image: Image
    trimap: UInt8
    metadata: Metadata


def load(image_path: Path, trimap_path: Path, spec: OutputSpec) -> Loaded:
    """Read one pair; InputError if a file cannot be used, or if the two differ in size."""
    trimap = read_trimap(trimap_path, spec.max_pixels)
    photograph = read_photograph(image_path, max_pixels=spec.max_pixels)
    require_one_size(Pair(image_path.stem, image_path, trimap_path), photograph.image, trimap)
    return Loaded(photograph.image, trimap, kept_metadata(image_path, photograph.metadata, spec))


def save(out: Path, loaded: Loaded, alpha: Float32, spec: OutputSpec) -> None:
    """Write the result of one pair: whole, or not at all."""
    made = render(loaded.image, alpha, spec)
    write_image(out, made, metadata=loaded.metadata, premultiplied=spec.premultiplied)


def read_trimap(path: Path, max_pixels: int) -> UInt8:
    """Read a canonical trimap; warn if pixels were mapped."""
    reading = dim.trimap.read(path, max_pixels=max_pixels)
    if reading.mapped:
        warnings.warn(TrimapWarning(reading.mapped, str(path)), stacklevel=2)
    return reading.trimap
