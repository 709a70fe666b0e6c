"""``dim-matte bench``: how fast a model is here, on one image."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dim.errors import InputError
from dim.files import write_text
from dim.images.files import MAX_PIXELS, read_image, read_trimap
from dim_runtime.cli import options
from dim_runtime.cli.measure import Bench, bench, eager_pytorch, matrix_ceiling, model_name
from dim_runtime.images.samples import sample_paths
from dim_runtime.memory import format_bytes
from dim_runtime.settings import MattingOptions


class Rival(StrEnum):
    """What a measurement can be compared with."""

    TORCH = "torch"


def bench_image(
    image: Annotated[Path | None, typer.Argument(help="Default: the photograph of the package.")] = None,
    trimap: Annotated[Path | None, typer.Argument(help="Its trimap.")] = None,
    *,
    model: options.Model = None,
    backend: options.Engine = None,
    device: options.Device = "cpu",
    precision: options.Lowered = None,
    tile: options.Tile = 1536,
    context: options.ContextText = "exact",
    threads: options.Threads = None,
    memory_limit: options.MemoryLimit = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs, after one that is not.")] = 5,
    against: Annotated[
        Rival | None, typer.Option(help="torch: the whole image in eager PyTorch, in a process of its own.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
) -> None:
    """Time a model on an image: seconds, GFLOP/s, memory; --against torch tells how much faster it is."""
    image, trimap = _pair(image, trimap)
    chosen = MattingOptions(
        model, backend, device, precision, tile,
        options.parse_context(context), threads, options.parse_limit(memory_limit),
    )  # fmt: skip
    colours, hints = read_image(image, max_pixels=max_pixels), read_trimap(trimap, max_pixels=max_pixels)
    ceiling = matrix_ceiling() if device == "cpu" else None
    with chosen.open() as matting:
        about = {
            "model": model_name(model),
            "backend": backend or _own_backend(model),
            "device": device,
            "precision": precision or matting.metadata.precision,
        }
        found = bench(matting, colours, hints, runs=runs, about=about)
        metadata = matting.metadata
    rival = eager_pytorch(metadata, *hints.shape, runs=runs) if against else None
    found = found.model_copy(update={"ceiling_gflops": ceiling, "against": rival})
    _show(found)
    if json is not None:
        write_text(json, found.model_dump_json(indent=2) + "\n")


def _pair(image: Path | None, trimap: Path | None) -> tuple[Path, Path]:
    if image is None:
        return sample_paths()
    if trimap is None:
        raise InputError(f"cannot matte {image} without a trimap", fix="dim-matte bench IMAGE TRIMAP")
    return image, trimap


def _own_backend(model: Path | None) -> str:
    return "onnxruntime" if model is None or model.suffix == ".onnx" else "the engine's own"


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
        ("speed", f"{found.megapixels_per_s:.2f} megapixels/s, {found.gflops:.0f} GFLOP/s"),
        ("memory", f"peak {format_bytes(found.peak_bytes)}"),
    ]
    if found.ceiling_gflops is not None:
        share = found.gflops / found.ceiling_gflops
        rows.append(
            ("ceiling", f"{share:.0%} of a float32 matrix product's {found.ceiling_gflops:.0f} GFLOP/s")
        )
    if found.against is not None:
        peak = format_bytes(found.against.peak_bytes)
        rows.append(("against", f"{found.against.name}: {found.against.p50_s:.3f} s, peak {peak}"))
        rows.append(("ratio", f"{found.speedup:.2f} × as fast, {found.memory_share:.2f} of the memory"))
    return rows
