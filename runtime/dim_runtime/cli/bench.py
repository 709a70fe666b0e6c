"""``dim-matte bench``: the speed and the memory of a model on one image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from dim.cli_support import AsJson, ReportFile, publish
from dim.errors import InputError
from dim.images.decoding import MAX_PIXELS
from dim.images.files import read_image, read_trimap
from dim_runtime.backends.open import model_path
from dim_runtime.cli.measure import Bench, eager_pytorch, matrix_ceiling, measure, model_name
from dim_runtime.cli.options import EngineOptions, MaxPixels, expand
from dim_runtime.images.samples import sample_paths
from dim_runtime.matting import Matting
from dim_runtime.memory import format_bytes


@expand(EngineOptions)
def bench(
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", help="The image. The default is a photograph of this package."),
    ] = None,
    trimap: Annotated[Path | None, typer.Argument(metavar="TRIMAP", help="Its trimap.")] = None,
    *,
    options: EngineOptions,
    runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of timed runs, after one that is not timed.")
    ] = 5,
    against: Annotated[
        Literal["torch"] | None,
        typer.Option(help="Also time the whole image in eager PyTorch, in a separate process."),
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Measure the time, the GFLOP/s and the peak memory of a model on one image."""
    image, trimap = _pair(image, trimap)
    pixels, levels = read_image(image, max_pixels=max_pixels), read_trimap(trimap, max_pixels=max_pixels)
    ceiling = matrix_ceiling() if options.device == "cpu" else None
    settings = options.matting()
    started = time.perf_counter()
    with Matting.from_options(settings) as matting:
        opening_s = time.perf_counter() - started
        about = {
            "model": model_name(settings.model),
            "backend": options.backend or _usual_backend(model_path(settings.model)),
            "device": options.device,
            "precision": options.precision or matting.metadata.precision,
        }
        found = measure(matting, pixels, levels, runs=runs, opening_s=opening_s, about=about)
        metadata = matting.metadata
    rival = eager_pytorch(metadata, *levels.shape, runs=runs, device=options.device) if against else None
    found = found.model_copy(update={"ceiling_gflops": ceiling, "against": rival})
    if not json:
        _show(found)
    publish(found.model_dump_json(indent=2), as_json=json, report=report)


def _pair(image: Path | None, trimap: Path | None) -> tuple[Path, Path]:
    if image is None:
        return sample_paths()
    if trimap is None:
        raise InputError(f"cannot matte {image} without a trimap", fix="dim-matte bench IMAGE TRIMAP")
    return image, trimap


def _usual_backend(model: Path) -> str:
    return "onnxruntime" if model.suffix == ".onnx" else "the engine's own"


def _show(found: Bench) -> None:
    table = Table(show_header=False, box=None)
    for name, value in _rows(found):
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)


def _rows(found: Bench) -> list[tuple[str, str]]:
    kind = "exact" if found.exact else f"context {found.context} px"
    rows = [
        ("model", f"{found.model}, {found.backend}, {found.precision}, {found.device}"),
        ("image", f"{found.width}×{found.height} px, {found.windows} windows, {kind}, cost {found.cost:.2f}"),
        ("time", f"{found.p50_s:.3f} s (p95 {found.p95_s:.3f} s), planning {found.plan_seconds:.3f} s"),
        ("first call", f"{found.first_s:.3f} s, after {found.opening_s:.3f} s to open the model"),
        ("speed", f"{found.megapixels_per_s:.2f} megapixels/s, {found.gflops:.0f} GFLOP/s"),
        ("memory", f"peak {format_bytes(found.peak_bytes)}"),
    ]
    if found.share_of_ceiling is not None:
        ceiling = f"{found.ceiling_gflops:.0f} GFLOP/s"
        rows.append(("ceiling", f"{found.share_of_ceiling:.0%} of a float32 matrix product's {ceiling}"))
    if found.against is not None:
        peak = format_bytes(found.against.peak_bytes)
        rows.append(("against", f"{found.against.name}: {found.against.p50_s:.3f} s, peak {peak}"))
        memory = "" if found.memory_share is None else f", {found.memory_share:.2f} of the memory"
        rows.append(("ratio", f"{found.speedup:.2f} × as fast{memory}"))
    return rows
