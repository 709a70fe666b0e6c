"""``dim-export``: checkpoints to artefacts, and what is inside them."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dim import console
from dim.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from dim_export.graph import Shape
    from dim_export.parity import ParityReport

# torch takes seconds to import: each command imports what it needs, so that --help and inspect are quick.

app = typer.Typer(
    name="dim-export",
    help="Turn Deep Image Matting checkpoints into files that run without PyTorch.",
    no_args_is_help=True,
    add_completion=False,
)

Checkpoint = Annotated[Path, typer.Argument(help="OpenMMLab .pth, a state dict, or .safetensors.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the engine; its own choice by default.")]


@app.command()
def onnx(
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")],
    shape: Annotated[
        str | None, typer.Option(metavar="N,H,W", help="Freeze batch, height and width; all free by default.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with PyTorch before the file appears.")
    ] = True,
    threads: Threads = None,
) -> None:
    """Export a checkpoint as a single ONNX file that owns pre- and post-processing.

    The file is compared with PyTorch through the runtime first; one that differs is not left behind.
    """
    _require("export a checkpoint", "torch", "onnxscript")
    frozen = _shape(shape)
    _require_onnx_suffix(output)
    if verify:
        _require_verifiable(frozen)
    from dim_export import to_onnx

    option = f" --shape {shape}" if frozen else ""
    to_onnx.export(
        checkpoint,
        output,
        static_shape=frozen,
        verify=(lambda path: _verified(checkpoint, path, output.name, threads)) if verify else None,
        command=f"dim-export onnx {checkpoint.name} -o {output.name}{option}",
    )
    Console().print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)", highlight=False, soft_wrap=True)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX artefact.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what is inside an artefact: inputs, output, nodes, and where it comes from."""
    _require("inspect a model", "onnx")
    from dim_export.inspection import inspect as look
    from dim_export.report import print_inspection

    found = look(model)
    if json:
        print(found.model_dump_json(indent=2))
    else:
        print_inspection(found, Console(soft_wrap=True, highlight=False))


@app.command()
def verify(
    checkpoint: Checkpoint,
    artefacts: Annotated[list[Path], typer.Argument(metavar="ARTEFACT...", help="Files to compare with it.")],
    json: JsonFile = None,
    threads: Threads = None,
) -> None:
    """Compare artefacts with a checkpoint through the runtime; exit code 1 if one differs."""
    _require("verify an artefact", "torch", "onnxscript")
    from dim_export import parity
    from dim_export.report import print_parity

    reports = [parity.verify(checkpoint, artefact, threads=threads) for artefact in artefacts]
    for report in reports:
        print_parity(report, Console())
    if json is not None:
        _write(json, "[" + ",\n".join(report.model_dump_json(indent=2) for report in reports) + "]\n")
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command()
def bench(
    checkpoint: Checkpoint,
    size: Annotated[int, typer.Option(help="Side of the square window, a multiple of 32 pixels.")] = 512,
    pairs: Annotated[int, typer.Option(min=1, help="Timed runs of each engine, in alternation.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of both engines; torch's own by default.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Time one window in ONNX Runtime against PyTorch eager (channels_last), in alternation."""
    _require("compare engines", "torch", "onnxscript")
    from dim_export.report import print_bench
    from dim_export.window_bench import bench_checkpoint

    result = bench_checkpoint(checkpoint, size=size, pairs=pairs, threads=threads)
    print_bench(result, Console(highlight=False))
    if json is not None:
        _write(json, result.model_dump_json(indent=2) + "\n")


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


def _verified(checkpoint: Path, artefact: Path, name: str, threads: int | None) -> None:
    from dim_export import parity
    from dim_export.report import print_parity

    report = parity.verify(checkpoint, artefact, threads=threads).model_copy(update={"artefact": name})
    print_parity(report, Console())
    _raise_unless_passed(report)


def _raise_unless_passed(report: ParityReport) -> None:
    from dim_export.parity import ParityError

    if not report.passed:
        raise ParityError(
            f"refused to write {report.artefact}: it does not compute what its checkpoint computes",
            got=f"{report.mean_share_beyond:.3%} of unknown pixels beyond 1/255, "
            f"mean difference {report.mean_sad_share:.3%}",
            expected=f"at most {report.gates.share_beyond:.3%} and {report.gates.sad_share:.3%}",
            fix="report it; --no-verify writes the file all the same",
        )


def _require(task: str, *packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(task, package=package, extra="export") from error


def _require_verifiable(shape: Shape | None) -> None:
    try:
        import_module("onnxruntime")
    except ImportError as error:
        task = "verify the artefact, which --no-verify skips"
        raise MissingExtraError(task, package="onnxruntime", extra="cpu") from error
    if shape is not None and shape[0] != 1:
        raise InputError(
            "cannot verify this shape",
            got=f"N = {shape[0]}",
            expected="N = 1",
            why="verification goes through the runtime, which runs windows one by one",
            fix="--no-verify, or leave the shape free",
        )


def _shape(text: str | None) -> Shape | None:
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


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
