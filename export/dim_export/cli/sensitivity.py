"""``dim-export sensitivity``: the error that int8 adds in each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from dim.cli_support import CHECKPOINT_HELP, AsJson, ReportFile, checkpoint_file, publish
from dim.extras import require
from dim_export.cli.support import bar
from dim_export.int8 import Method, Mode

if TYPE_CHECKING:
    from dim_export.int8.sensitivity import Sensitivity


def sensitivity(
    checkpoint: Annotated[
        Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of images/, trimaps/ and, to score against the truth, alphas/.")
    ],
    mode: Annotated[
        Mode,
        typer.Option(help="alone: only this layer is in int8. spared: all layers but this one are."),
    ] = "alone",
    method: Annotated[
        Method, typer.Option("--calibration-method", help="Method that chooses the range of an activation.")
    ] = "percentile",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of pairs to calibrate on. The default is pairs of this package."),
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
) -> None:
    """Print the SAD that each convolution adds in int8, the largest first.

    The network is scored once for each layer in ONNX Runtime, which takes minutes on a few photographs.
    """
    require("measure the layers", "torch", "onnxscript")
    require("measure the layers", "onnxruntime", extra="cpu")
    from dim_export.int8.sensitivity import measure

    with bar("scoring") as progress:
        found = measure(
            checkpoint,
            data,
            method=method,
            mode=mode,
            calibration=calibration,
            threads=threads,
            progress=progress,
        )
    if not json:
        _print(found)
    publish(found.model_dump_json(indent=2), as_json=json, report=report)


def _print(found: Sensitivity) -> None:
    layers = "only this layer" if found.mode == "alone" else "all but this layer"
    table = Table("layer", f"SAD, {layers} in int8", "change")
    for column in table.columns[1:]:
        column.justify = "right"
    for cost in found.layers:
        table.add_row(cost.layer, f"{cost.sad:.4f}", f"{cost.sad - found.base_sad:+.4f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{found.pairs} pairs against {found.against}: SAD {found.fp32_sad:.4f} in fp32, "
        f"{found.int8_sad:.4f} with every layer in int8, method {found.method}",
        soft_wrap=True,
    )
