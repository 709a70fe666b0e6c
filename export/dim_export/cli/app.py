"""``dim-export``: checkpoints to artefacts, and the contents of artefacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dim import cli_support
from dim.cli_support import CHECKPOINT_HELP, version_option
from dim.extras import require as _require
from dim_export.cli import bench, context, onnx, sensitivity, triton, trt, verify

# torch takes seconds to import: each command imports what it needs, so that --help and inspect are quick.

app = typer.Typer(
    name="dim-export",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)


@app.callback(epilog="Start with: dim-export onnx CHECKPOINT -o model.onnx")
def common(
    *,
    version: Annotated[bool, version_option("dim-export")] = False,
) -> None:
    """Turn Deep Image Matting checkpoints into files that run without PyTorch."""


app.command(epilog="Example: dim-export onnx best.safetensors -o model.onnx --precision int8")(onnx.onnx)


@app.command(epilog="Example: dim-export inspect model.onnx")
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="FILE", help=f"An ONNX artefact, an engine file, or: {CHECKPOINT_HELP}")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the contents of a file: network, parameters, multiply-adds, inputs and output, origin.

    Files with the suffixes .onnx and .engine are artefacts; all others are checkpoints.
    """
    artefact = Path(model)
    if artefact.suffix not in (".onnx", ".engine"):
        _inspect_checkpoint(model, as_json=json)
        return
    if artefact.suffix != ".engine":
        _require("inspect a model", "onnx")
    from dim_export.cli.printing import print_inspection
    from dim_export.inspection import inspect as look

    found = look(artefact)
    if json:
        print(found.model_dump_json(indent=2))
    else:
        print_inspection(found, Console(soft_wrap=True, highlight=False))


app.command(epilog="Example: dim-export verify best.safetensors model.onnx int8.onnx -o report/")(
    verify.verify
)
app.command(epilog="Example: dim-export trt model.onnx -o model.engine --builder tensorrt-rtx")(trt.trt)
app.command(epilog="Example: dim-export triton model.onnx -o repository/ --windows 1024,1024")(triton.triton)
app.command(epilog="Example: dim-export context --images photographs/")(context.context)
app.command(epilog="Example: dim-export sensitivity best.safetensors --data photographs/")(
    sensitivity.sensitivity
)
app.command(epilog="Example: dim-export bench model.onnx int8.onnx --backend onnxruntime")(bench.bench)


def _inspect_checkpoint(text: str, *, as_json: bool) -> None:
    _require("inspect a checkpoint", "torch", "safetensors")
    from dim_export.cli.printing import print_checkpoint
    from dim_export.inspection import inspect_checkpoint

    found = inspect_checkpoint(cli_support.checkpoint_file(text))
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        print_checkpoint(found, Console(soft_wrap=True, highlight=False))


def main() -> None:
    """Run the program ``dim-export``."""
    cli_support.run(app)
