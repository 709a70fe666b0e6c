"""``dim-matte``: mattes, cut-outs and trimaps from the command line."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from typing import Annotated

import typer

import dim.cli_support
from dim.cli_support import version_option
from dim_runtime.cli.auto import auto
from dim_runtime.cli.batch import batch
from dim_runtime.cli.bench import bench
from dim_runtime.cli.doctor import doctor
from dim_runtime.cli.run import run
from dim_runtime.cli.serve import serve
from dim_runtime.cli.trimap import trimap
from dim_runtime.errors import (
    FrozenShapeWarning,
    NothingKnownWarning,
    NothingUnknownWarning,
    ProfileWarning,
    TrimapWarning,
)

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compute alpha mattes from images and trimaps.",
)


@app.callback(epilog="Start with: dim-matte doctor, then dim-matte run photo.png trimap.png -o alpha.png")
def common(
    *,
    version: Annotated[bool, version_option("dim-matte")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log to standard error what is opened, planned and run.")
    ] = False,
) -> None:
    """Compute alpha mattes from images and trimaps."""
    if verbose:
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("dim_runtime").setLevel(logging.INFO)


app.command(epilog="Example: dim-matte run photo.png trimap.png -o cutout.png --out cutout")(run)
app.command(epilog="Example: dim-matte auto photo.jpg -o cutout.png --box 120,80,400,500")(auto)
app.command(epilog="Example: dim-matte batch images/ trimaps/ -o mattes/ --report report.json")(batch)
app.command(epilog="Example: dim-matte trimap mask.png -o trimap.png")(trimap)
app.command(epilog="Example: dim-matte bench photo.png trimap.png --backend openvino")(bench)
app.command(epilog="Example: dim-matte serve --port 8000, then open http://127.0.0.1:8000")(serve)
app.command(epilog="Example: dim-matte doctor --json")(doctor)


WARNINGS = (
    TrimapWarning,
    NothingUnknownWarning,
    NothingKnownWarning,
    FrozenShapeWarning,
    ProfileWarning,
)
"""Warnings that are shown each time, for each image."""


def main() -> None:
    """Run the program ``dim-matte``."""
    warnings.showwarning = _show_warning
    for kind in WARNINGS:
        warnings.simplefilter("always", kind)
    # SIGTERM ends the program as an exception does, so that temporary files are removed.
    signal.signal(signal.SIGTERM, _terminate)
    dim.cli_support.run(app)


def _terminate(number: int, _: object) -> None:
    sys.exit(128 + number)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)
