"""``dim-export onnx``: export a checkpoint to an ONNX file in one of four precisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from dim.arrays import WindowShape
from dim.cli_support import CHECKPOINT_HELP, AsJson, ReportFile, checkpoint_file, publish
from dim.contract import Precision
from dim.errors import InputError
from dim.extras import require
from dim_export.cli.support import BATCH, bar, command_line, parse_axes, require_suffix
from dim_export.int8 import Method

if TYPE_CHECKING:
    from dim_export.int8.convert import Quantisation

NOTHING = "none"
"""Value of ``--keep-float`` for an empty list."""


def onnx(
    checkpoint: Annotated[
        Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="ONNX file to write.")],
    precision: Annotated[Precision, typer.Option(help="Number format of the convolutions.")] = "fp32",
    shape: Annotated[
        str | None,
        typer.Option(metavar=BATCH, help="Freeze batch, height and width. All are free by default."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="int8: folder of images/ and trimaps/ to calibrate on. The default is pairs of this package."
        ),
    ] = None,
    calibration_method: Annotated[
        Method | None,
        typer.Option(help="int8: method that chooses the range of an activation. The default is percentile."),
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="int8: a convolution that stays in float32. Can be repeated; 'none' for no convolution. The "
            "default is the refiner's first and last one, and deconv1. dim-export sensitivity lists all.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the file with PyTorch before it appears.")
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine. The default is the engine's choice.")
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
) -> None:
    """Export a checkpoint as one ONNX file that includes pre- and post-processing.

    Inputs and output are the same in every precision. The file is first compared with PyTorch, through the
    runtime. It appears only if it passes the gates of its precision.
    """
    require("export a checkpoint", "torch", "onnxscript")
    frozen = None if shape is None else cast("WindowShape", parse_axes(shape, BATCH, "--shape"))
    require_suffix(output, ".onnx")
    given = {
        "--precision": None if precision == "fp32" else precision,
        "--shape": shape,
        "--calibration": calibration,
        "--calibration-method": calibration_method,
        "--keep-float": keep_float,
    }
    if verify:
        _require_verifiable(frozen, precision)
    from dim_export.onnx_export import export

    with _quantisation(precision, calibration, calibration_method, keep_float) as quantisation:
        metadata = export.export(
            checkpoint,
            output,
            static_shape=frozen,
            precision=precision,
            quantisation=quantisation,
            verify=partial(_require_parity, checkpoint, output.name, threads, quiet=json) if verify else None,
            command=command_line("onnx", [checkpoint], output, given),
        )
    publish(metadata.model_dump_json(indent=2), as_json=json, report=report)
    if not json:
        size = f"{output.stat().st_size / 1e6:.2f} MB"
        Console().print(f"wrote {output} ({size})", highlight=False, soft_wrap=True)


@contextmanager
def _quantisation(
    precision: Precision, calibration: Path | None, method: Method | None, keep_float: list[str] | None
) -> Iterator[Quantisation | None]:
    """Yield the options of int8, with a progress bar; None for other precisions, which have no options."""
    options = {"--calibration": calibration, "--calibration-method": method, "--keep-float": keep_float}
    if precision != "int8":
        _require_absent(precision, options)
        yield None
        return
    from dim_export.int8.convert import DEFAULT_METHOD, Quantisation

    with bar("calibrating") as progress:
        yield Quantisation(
            calibration=calibration,
            method=DEFAULT_METHOD if method is None else method,
            keep_float=None if keep_float is None else _layers(keep_float),
            progress=progress,
        )


def _require_absent(precision: Precision, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(
            f"cannot use {', '.join(given)} with --precision {precision}",
            why="only int8 is calibrated",
            fix="--precision int8, or leave the option out",
        )


def _layers(names: list[str]) -> tuple[str, ...]:
    return () if names == [NOTHING] else tuple(names)


def _require_parity(checkpoint: Path, name: str, threads: int | None, artefact: Path, *, quiet: bool) -> None:
    """Compare a new artefact with its checkpoint, and print the result under ``name`` unless quiet.

    Raises:
        ParityError: it failed a gate.
    """
    from dim_export.cli.printing import print_parity
    from dim_export.parity import verify as parity
    from dim_export.parity.result import require_passed

    report = parity.verify(checkpoint, artefact, threads=threads).model_copy(update={"artefact": name})
    if not quiet:
        print_parity(report, Console())
    require_passed(report)


def _require_verifiable(shape: WindowShape | None, precision: Precision) -> None:
    package, extra = ("openvino", "openvino") if precision == "bf16" else ("onnxruntime", "cpu")
    require("verify the artefact, which --no-verify skips", package, extra=extra)
    if shape is not None and shape[0] != 1:
        raise InputError(
            "cannot verify this shape",
            got=f"N = {shape[0]}",
            expected="N = 1",
            why="the runtime verifies, and runs windows of such a file one by one",
            fix="--no-verify, or leave the shape free",
        )
