"""One pair of files in, one file out: what ``dim-matte run`` does for each image."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

import dim.trimap
from dim import cutout
from dim_runtime.errors import TrimapWarning
from dim_runtime.geometry import Plan
from dim_runtime.image_io import MAX_PIXELS, Image, read_image, require_pixels, require_writable, write_image
from dim_runtime.matting import Alpha, Matting
from dim_runtime.memory import format_bytes, peak_resident_bytes


class Output(StrEnum):
    """What is written: the matte, the foreground with straight alpha, or the foreground over a background."""

    ALPHA = "alpha"
    CUTOUT = "cutout"
    COMPOSITE = "composite"


class Foreground(StrEnum):
    """Where the foreground's colours come from."""

    ESTIMATED = "estimated"
    IMAGE = "image"


@dataclass(frozen=True)
class Recipe:
    """How a result is made.

    Attributes:
        output: what is written.
        foreground: colours of cut-outs and composites.
        background: of composites: ``#RRGGBB`` or an image file, scaled to cover.
        depth: bits of the output, 8 or 16; None for the input's.
        max_pixels: larger images are refused.
    """

    output: Output = Output.ALPHA
    foreground: Foreground = Foreground.ESTIMATED
    background: str = "#FFFFFF"
    depth: cutout.Depth | None = None
    max_pixels: int = MAX_PIXELS

    def check(self) -> None:
        """Raise what can be known to be wrong before any work is done."""
        if self.output is not Output.ALPHA and self.foreground is Foreground.ESTIMATED:
            cutout.require_estimator()
        if self.output is Output.COMPOSITE and self.background.startswith("#"):
            cutout.parse_colour(self.background)
        elif self.output is Output.COMPOSITE:
            require_pixels(Path(self.background), self.max_pixels)


@dataclass(frozen=True)
class Outcome:
    """What came of one pair: seconds are the matting's, files and cut-out excluded."""

    plan: Plan
    seconds: float
    peak_bytes: int

    def summary(self) -> str:
        megapixels = self.plan.height * self.plan.width / 1e6
        return (
            f"{self.plan.width}×{self.plan.height} px in {self.seconds:.2f} s, "
            f"{megapixels / self.seconds:.2f} megapixels/s; {describe(self.plan)}; "
            f"peak {format_bytes(self.peak_bytes)}"
        )


def describe(plan: Plan) -> str:
    """Windows, cost, and planned peak memory of a plan in one line."""
    count = len(plan.windows)
    context = "exact" if plan.exact else f"context {plan.context} px"
    text = f"{count} window{'' if count == 1 else 's'}, cost {plan.cost:.2f}, {context}, "
    text += f"planned peak {format_bytes(plan.peak_bytes)}"
    return text if plan.note is None else f"{text} ({plan.note})"


def run_pair(matting: Matting, image_path: Path, trimap_path: Path, out: Path, recipe: Recipe) -> Outcome:
    """Matte one pair of files and write the result; a DimError leaves no file behind."""
    require_writable(out)
    trimap = read_trimap(trimap_path, recipe.max_pixels)
    image = read_image(image_path, max_pixels=recipe.max_pixels)
    plan = matting.plan(trimap)
    started = time.perf_counter()
    alpha = matting(image, trimap)
    outcome = Outcome(plan, time.perf_counter() - started, peak_resident_bytes())
    write_image(out, render(image, alpha, recipe))
    return outcome


def read_trimap(path: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """A canonical trimap from a file; a warning counts the pixels that were mapped."""
    require_pixels(path, max_pixels)
    reading = dim.trimap.read(path)
    if reading.mapped:
        warnings.warn(TrimapWarning(reading.mapped, str(path)), stacklevel=2)
    return reading.trimap


def render(image: Image, alpha: Alpha, recipe: Recipe) -> Image:
    """The matte, cut-out or composite in the depth asked for."""
    depth = recipe.depth or cutout.depth_of(image)
    if recipe.output is Output.ALPHA:
        return cutout.quantise(alpha, depth)
    colours = cutout.to_depth(image, depth)
    if recipe.foreground is Foreground.ESTIMATED:
        colours = cutout.estimate_foreground(colours, alpha)
    if recipe.output is Output.CUTOUT:
        return cutout.rgba(colours, alpha)
    return cutout.composite(colours, alpha, _background(alpha, recipe))


def _background(alpha: Alpha, recipe: Recipe) -> Image | cutout.Colour:
    if recipe.background.startswith("#"):
        return cutout.parse_colour(recipe.background)
    height, width = alpha.shape
    return cutout.covering(read_image(recipe.background, max_pixels=recipe.max_pixels), height, width)
