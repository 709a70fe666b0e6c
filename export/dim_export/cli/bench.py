"""``dim-export bench``: time one window in artefacts, or in a checkpoint and its artefact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from dim.cli_support import CHECKPOINT_HELP, AsJson, ReportFile, checkpoint_file, publish
from dim.errors import InputError
from dim.extras import require
from dim_runtime.backends.open import BackendName

if TYPE_CHECKING:
    from dim_export.bench.artefacts import ArtefactBench

ARTEFACTS = (".onnx", ".engine")
BACKENDS: tuple[str, ...] = get_args(BackendName)


def _backend(text: str) -> str:
    """Check the name of a back end, because typer has no choices for options that can be repeated."""
    if text not in BACKENDS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, BACKENDS))}")
    return text


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            parser=checkpoint_file, metavar="CHECKPOINT|ARTEFACT...", help=f"Artefacts, or: {CHECKPOINT_HELP}"
        ),
    ],
    size: Annotated[int, typer.Option(help="Side of the square window, a multiple of 32 pixels.")] = 512,
    pairs: Annotated[int, typer.Option(min=1, help="Number of timed runs of each, in alternation.")] = 5,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            parser=_backend,
            metavar=f"[{'|'.join(BACKENDS)}]",
            help="Engine that runs the artefacts. Can be repeated. The default depends on the suffix.",
        ),
    ] = None,
    lowered: Annotated[
        Literal["bf16"] | None,
        typer.Option(
            help="Time each artefact in OpenVINO a second time with its floating-point part in bf16."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device that runs the artefacts: cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of every engine. The default is each engine's own choice."),
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
) -> None:
    """Time one window in several artefacts or engines, in alternation.

    A checkpoint is exported and timed in ONNX Runtime against PyTorch eager (channels_last). Artefacts are
    timed in each engine and compared with the first. Alternation spreads the load of other programs evenly.
    """
    if lowered is not None and "openvino" not in (backend or []):
        raise InputError(
            f"cannot time --lowered {lowered}",
            got="no --backend openvino",
            why="only OpenVINO computes the floating-point part of an artefact in another precision",
        )
    if all(model.suffix in ARTEFACTS for model in models):
        from dim_export.bench.artefacts import bench_artefacts

        found = bench_artefacts(
            models,
            cast("list[BackendName] | None", backend) or [None],
            lowered=lowered,
            size=size,
            rounds=pairs,
            device=device,
            threads=threads,
        )
        if not json:
            _print(found)
        text = found.model_dump_json(indent=2)
    else:
        _require_one_checkpoint(models, backend, device)
        text = _bench_checkpoint(models[0], size, pairs, threads, quiet=json)
    publish(text, as_json=json, report=report)


def _bench_checkpoint(path: Path, size: int, pairs: int, threads: int | None, *, quiet: bool) -> str:
    require("compare engines", "torch", "onnxscript")
    from dim_export.bench.checkpoint import bench_checkpoint
    from dim_export.cli.printing import print_bench

    result = bench_checkpoint(path, size=size, pairs=pairs, threads=threads)
    if not quiet:
        print_bench(result, Console(highlight=False))
    return result.model_dump_json(indent=2)


def _require_one_checkpoint(models: list[Path], backend: list[str] | None, device: str) -> None:
    if len(models) > 1 or backend is not None or device != "cpu":
        raise InputError(
            "cannot compare these files",
            got=", ".join(model.name for model in models),
            expected="one checkpoint, without --backend and --device; or artefacts only",
            fix="export checkpoints first: dim-export onnx CHECKPOINT -o MODEL.onnx",
        )


def _print(found: ArtefactBench) -> None:
    table = Table("artefact", "engine", "precision", "median", "GFLOP/s", "speed-up", box=None)
    for timed in found.engines:
        rate = f"{timed.gflop / timed.p50_s:.0f}"
        row = (timed.artefact, timed.engine, timed.precision, f"{timed.p50_s:.3f} s", rate)
        table.add_row(*row, f"{timed.speedup:.2f} ×")
    console = Console(highlight=False)
    console.print(table)
    runs = len(found.engines[0].seconds)
    console.print(f"one window of {found.size}×{found.size} px, {runs} rounds in alternation", soft_wrap=True)
