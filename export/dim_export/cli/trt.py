"""``dim-export trt``: build a TensorRT or TensorRT-RTX engine file from an ONNX artefact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from dim.arrays import WindowShape
from dim.cli_support import AsJson, ReportFile, publish
from dim.contract import STRIDE, ArtefactMetadata, EngineBuilder, ShapeProfile
from dim.errors import InputError
from dim_export.cli.support import BATCH, command_line, parse_axes, require_suffix
from dim_runtime.artefacts.engine_compatibility import RTX_PORTABLE
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.memory import parse_bytes


def trt(
    model: Annotated[Path, typer.Argument(help="ONNX artefact, made by dim-export onnx.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Engine file to write.")],
    builder: Annotated[
        EngineBuilder | None, typer.Option(help="Package that builds. The default is the only one installed.")
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="8.6,12.0", help="TensorRT-RTX: GPUs to build for. The default is 8.6, 8.9, 12.0."
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Largest side of a window, in pixels. The default is 1536.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Largest batch. The default is 1.")] = None,
    smallest: Annotated[
        str | None, typer.Option("--min", metavar=BATCH, help="Smallest shape. The default is 1,32,32.")
    ] = None,
    optimum: Annotated[
        str | None,
        typer.Option("--opt", metavar=BATCH, help="Shape to optimise for. The default is 1,TILE,TILE."),
    ] = None,
    largest: Annotated[
        str | None,
        typer.Option("--max", metavar=BATCH, help="Largest shape. The default is BATCH,TILE,TILE."),
    ] = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible", help="TensorRT: build for all GPUs from compute capability 8.0 on."
        ),
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: build for later releases, too.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="TensorRT: file that keeps kernel timings.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Limit of GPU scratch memory during the build, such as 4GB.")
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
) -> None:
    """Build an engine file.

    TensorRT builds on the GPU that will run it. TensorRT-RTX needs no GPU.
    """
    require_suffix(output, ".engine")
    from dim_export.tensorrt.builders import BuildOptions
    from dim_export.tensorrt.convert import convert

    shapes = {"--tile": tile, "--batch": batch, "--min": smallest, "--opt": optimum, "--max": largest}
    given = {name: value for name, value in shapes.items() if value is not None}
    options = BuildOptions(
        profile=_profile(model, tile, batch, (smallest, optimum, largest), given),
        compute_capabilities=_capabilities(compute_capability),
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        timing_cache=timing_cache,
        workspace_bytes=parse_bytes(workspace) if workspace is not None else None,
    )
    flags = given | {
        "--builder": builder,
        "--compute-capability": compute_capability,
        "--hardware-compatible": hardware_compatible,
        "--version-compatible": version_compatible,
        "--workspace": workspace,
    }
    metadata = convert(
        model,
        output,
        builder=builder,
        options=options,
        command=command_line("trt", [model], output, flags),
    )
    if not json:
        _print(metadata, output)
    publish(metadata.model_dump_json(indent=2), as_json=json, report=report)


def _profile(
    model: Path,
    tile: int | None,
    batch: int | None,
    shapes: tuple[str | None, str | None, str | None],
    given: Mapping[str, object],
) -> ShapeProfile | None:
    """Return the shapes of the engine; None for those of an artefact whose shape is frozen.

    Args:
        shapes: texts of ``--min``, ``--opt`` and ``--max``.
        given: all options of shapes that were given, by name.
    """
    from dim_export.tensorrt.convert import TILE, checked_profile, window_profile

    if not given and read_metadata(model).static_shape is not None:
        return None
    _require_one_limit(given)
    smallest, optimum, largest = (
        None if text is None else cast("WindowShape", parse_axes(text, BATCH, option))
        for text, option in zip(shapes, ("--min", "--opt", "--max"), strict=True)
    )
    side = TILE if tile is None else tile
    if largest is None and smallest is None and optimum is None:
        return window_profile(side, 1 if batch is None else batch)
    largest = largest or (1 if batch is None else batch, side, side)
    return checked_profile(smallest or (1, STRIDE, STRIDE), optimum or (1, *largest[1:]), largest)


def _require_one_limit(given: Mapping[str, object]) -> None:
    """Raise InputError for two options that set the largest shape."""
    for option in ("--tile", "--batch"):
        if option in given and "--max" in given:
            raise InputError(
                f"cannot use {option} and --max together",
                got=f"{option} {given[option]} --max {given['--max']}",
                why="both set the largest shape",
                fix="leave one of them out",
            )


def _capabilities(text: str | None) -> tuple[str, ...]:
    """``"8.6,12.0"`` -> ("8.6", "12.0"), each once, in the order given."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        major, dot, minor = part.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal() and part.isascii()):
            raise InputError(
                "cannot read --compute-capability", got=repr(text), expected="such as 8.6 or 8.6,12.0"
            )
    return tuple(dict.fromkeys(parts))


def _print(metadata: ArtefactMetadata, output: Path) -> None:
    engine = metadata.engine
    if engine is None:
        return
    console = Console(highlight=False, soft_wrap=True)
    targets = ", ".join(engine.compute_capabilities or RTX_PORTABLE)
    counts = ", ".join(f"{count} in {name}" for name, count in engine.convolutions.items())
    console.print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")
    console.print(f"{engine.builder} {engine.version}, compute capability {targets}")
    console.print(f"convolutions: {counts} (read from the {engine.precision_read_from})")
