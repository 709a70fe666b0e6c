"""``dim-export``: checkpoints to artefacts, and what is inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dim import cli_support
from dim.extras import require as _require
from dim_export.cli import bench, context, onnx, sensitivity, triton, trt, verify

# torch takes seconds to import: each command imports what it needs, so that --help and inspect are quick.

app = typer.Typer(
    name="dim-export",
    help="Turn Deep Image Matting checkpoints into files that run without PyTorch.",
    no_args_is_help=True,
    add_completion=False,
)


app.command()(onnx.onnx)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX artefact or an engine file.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what is inside an artefact: inputs, output, nodes, and where it comes from."""
    if model.suffix != ".engine":
        _require("inspect a model", "onnx")
    from dim_export.cli.printing import print_inspection
    from dim_export.inspection import inspect as look

    found = look(model)
    if json:
        print(found.model_dump_json(indent=2))
    else:
        print_inspection(found, Console(soft_wrap=True, highlight=False))


app.command()(verify.verify)
app.command()(trt.trt)
app.command()(triton.triton)
app.command()(context.context)
app.command()(sensitivity.sensitivity)
app.command()(bench.bench)


def main() -> None:
    """Entry point of the console script."""
    cli_support.run(app)
