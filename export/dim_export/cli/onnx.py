"""``dim-export onnx``: a checkpoint to an ONNX file in one of four precisions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console

from dim.arrays import WindowShape
from dim.cli_support import CHECKPOINT_HELP, checkpoint_file
from dim.contract import Precision
from dim.errors import InputError, MissingExtraError
from dim.extras import require
from dim.files import write_text
from dim_export.cli import verify as verify_command
from dim_export.cli.progress_bar import bar

if TYPE_CHECKING:
    from dim_export.onnx_export.precision import Quantisation

NOTHING = "none"
"""What ``--keep-float`` takes for an empty list."""


def onnx(
    checkpoint: Annotated[
        Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")],
    precision: Annotated[
        str, typer.Option(metavar="|".join(get_args(Precision)), help="What the network computes in.")
    ] = "fp32",
    shape: Annotated[
        str | None, typer.Option(metavar="N,H,W", help="Freeze batch, height and width; all free by default.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="int8: folder of images/ and trimaps/ to calibrate on; shipped pairs by default."),
    ] = None,
    calibration_method: Annotated[
        str | None,
        typer.Option(metavar="minmax|percentile|mse", help="int8: how the range of an activation is chosen."),
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="int8: a convolution that stays in float32; repeat it, or 'none'. By default those that see "
            "colours; dim-export sensitivity lists them.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with PyTorch before the file appears.")
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine; its own choice by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the metadata to this file.")] = None,
) -> None:
    """Export a checkpoint as a single ONNX file that owns pre- and post-processing.

    Inputs and output are the same in every precision. The file is compared with PyTorch through the runtime
    first; one that fails its precision's gates is not left behind.
    """
    require("export a checkpoint", "torch", "onnxscript")
    chosen = _precision(precision)
    frozen = _shape(shape)
    _require_onnx_suffix(output)
    given = {
        "--shape": shape,
        "--calibration": calibration and calibration.name,
        "--calibration-method": calibration_method,
        "--keep-float": keep_float,
    }
    if verify:
        _require_verifiable(frozen, chosen)
    from dim_export.onnx_export import export

    with _quantisation(chosen, calibration, calibration_method, keep_float) as quantisation:
        metadata = export.export(
            checkpoint,
            output,
            static_shape=frozen,
            precision=chosen,
            quantisation=quantisation,
            verify=(lambda path: verify_command.require_parity(checkpoint, path, output.name, threads))
            if verify
            else None,
            command=_command(checkpoint, output, chosen, given),
        )
    if json is not None:
        write_text(json, metadata.model_dump_json(indent=2) + "\n")
    Console().print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)", highlight=False, soft_wrap=True)


@contextmanager
def _quantisation(
    precision: Precision, calibration: Path | None, method: str | None, keep_float: list[str] | None
) -> Iterator[Quantisation | None]:
    """The options of int8, with a progress bar; None for the other precisions, which have none."""
    options = {"--calibration": calibration, "--calibration-method": method, "--keep-float": keep_float}
    if precision != "int8":
        _require_absent(precision, options)
        yield None
        return
    from dim_export.onnx_export.precision import DEFAULT_METHOD, Quantisation, checked_method

    with bar("calibrating") as progress:
        yield Quantisation(
            calibration=calibration,
            method=DEFAULT_METHOD if method is None else checked_method(method),
            keep_float=None if keep_float is None else _layers(keep_float),
            progress=progress,
        )


def _require_absent(precision: Precision, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(
            f"cannot use {', '.join(given)} with --precision {precision}",
            why="only int8 is calibrated",
            fix="--precision int8, or leave it out",
        )


def _layers(names: list[str]) -> tuple[str, ...]:
    return () if names == [NOTHING] else tuple(names)


def _precision(text: str) -> Precision:
    if text not in get_args(Precision):
        raise InputError(
            "there is no such precision", got=repr(text), expected=", ".join(get_args(Precision))
        )
    return cast(Precision, text)


def _command(checkpoint: Path, output: Path, precision: Precision, given: Mapping[str, object]) -> str:
    """What to type to repeat it; files without their folders, which are nobody's business."""
    words = ["dim-export", "onnx", checkpoint.name, "-o", output.name]
    if precision != "fp32":
        words += ["--precision", precision]
    for name, value in given.items():
        for part in value if isinstance(value, list) else [value]:
            words += [] if part is None else [name, str(part)]
    return shlex.join(words)


def _require_verifiable(shape: WindowShape | None, precision: Precision) -> None:
    package, extra = ("openvino", "openvino") if precision == "bf16" else ("onnxruntime", "cpu")
    try:
        import_module(package)
    except ImportError as error:
        task = "verify the artefact, which --no-verify skips"
        raise MissingExtraError(task, package=package, extra=extra) from error
    if shape is not None and shape[0] != 1:
        raise InputError(
            "cannot verify this shape",
            got=f"N = {shape[0]}",
            expected="N = 1",
            why="verification goes through the runtime, which runs windows one by one",
            fix="--no-verify, or leave the shape free",
        )


def _shape(text: str | None) -> WindowShape | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise InputError("cannot read --shape", got=repr(text), expected="N,H,W, such as 1,512,768")
    n, h, w = map(int, parts)
    return n, h, w


def _require_onnx_suffix(output: Path) -> None:
    if output.suffix != ".onnx":
        raise InputError(
            f"cannot write {output}",
            got=f"suffix {output.suffix!r}",
            expected=".onnx",
            fix=f"-o {output.with_suffix('.onnx')}",
        )
