"""``dim-export``: checkpoints to artefacts, and what is inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dim import console
from dim_export import (
    bench_command,
    context_command,
    onnx_command,
    sensitivity_command,
    triton_command,
    trt_command,
    verify_command,
)
from dim_export.command_support import require as _require

# torch takes seconds to import: each command imports what it needs, so that --help and inspect are quick.

app = typer.Typer(
    name="dim-export",
    help="Turn Deep Image Matting checkpoints into files that run without PyTorch.",
    no_args_is_help=True,
    add_completion=False,
)


app.command()(onnx_command.onnx)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX artefact or an engine file.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what is inside an artefact: inputs, output, nodes, and where it comes from."""
    if model.suffix != ".engine":
        _require("inspect a model", "onnx")
    from dim_export.inspection import inspect as look
    from dim_export.report import print_inspection

    found = look(model)
    if json:
        print(found.model_dump_json(indent=2))
    else:
        print_inspection(found, Console(soft_wrap=True, highlight=False))


app.command()(verify_command.verify)
app.command()(trt_command.trt)
app.command()(triton_command.triton)
app.command()(context_command.context)
app.command()(sensitivity_command.sensitivity)
app.command()(bench_command.bench)


def main() -> None:
    """Entry point of the console script."""
    console.run(app)
