"""``dim-export verify``: compare existing artefacts with their checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dim.cli_support import CHECKPOINT_HELP, AsJson, ReportFile, checkpoint_file, publish
from dim.contract import Precision
from dim.extras import require
from dim.files import write_text
from dim_export.cli.support import command_line
from dim_runtime.backends.open import BackendName

if TYPE_CHECKING:
    from dim_export.measure.opened import OpenedArtefact
    from dim_export.parity.report import Announce, Release

# torch takes seconds to import: the functions import what they need.


def verify(
    checkpoint: Annotated[
        Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)
    ],
    artefacts: Annotated[
        list[Path], typer.Argument(metavar="ARTEFACT...", help="Files to compare with the checkpoint.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Also compare on this folder of images/, trimaps/ and, to score them, alphas/."),
    ] = None,
    float64: Annotated[
        bool,
        typer.Option(
            "--float64", help="Also compare with PyTorch in float64, to show the effect of rounding alone."
        ),
    ] = False,
    backend: Annotated[
        BackendName | None, typer.Option(help="Inference engine. The default depends on the suffix.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the artefacts: cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        Precision | None,
        typer.Option(help="Lower the artefacts to this precision, if the engine can."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for report.json and report.html.")
    ] = None,
    json: AsJson = False,
    report: ReportFile = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engines. The default is each engine's choice.")
    ] = None,
    runs: Annotated[int, typer.Option(min=0, help="Timed runs of one window. 0 skips timing.")] = 5,
) -> None:
    """Compare artefacts with a checkpoint, through the runtime.

    The exit code is 1 if an artefact fails a gate.
    """
    require("verify an artefact", "torch", "onnxscript", *(["jinja2"] if output else []))
    from dim_export.parity import report as release_report

    given = {
        "--images": images,
        "--float64": float64,
        "--backend": backend,
        "--device": device,
        "--precision": precision,
        "--threads": threads,
        "--runs": runs,
    }
    with _opened(artefacts, backend, device, precision, threads) as opened, _status_line() as announce:
        release = release_report.examine(
            checkpoint,
            opened,
            folder=images,
            float64=float64,
            runs=runs,
            command=command_line("verify", [checkpoint, *artefacts], None, given),
            announce=announce,
        )
    publish(release.report.model_dump_json(indent=2), as_json=json, report=report)
    if not json:
        _print(release)
    if output is not None:
        _write_folder(release, output)
    if not release.report.passed:
        raise typer.Exit(1)


@contextmanager
def _opened(
    paths: Sequence[Path],
    backend: BackendName | None,
    device: str,
    precision: Precision | None,
    threads: int | None,
) -> Iterator[list[OpenedArtefact]]:
    """Open the artefacts, and close all of them at the end."""
    from dim_export.measure.opened import open_artefact

    with ExitStack() as stack:
        opened = []
        for path in paths:
            each = open_artefact(path, backend=backend, device=device, precision=precision, threads=threads)
            stack.callback(each.backend.close)
            opened.append(each)
        yield opened


def _print(release: Release) -> None:
    from dim_export.cli.printing import print_release

    print_release(release.report, Console())


def _write_folder(release: Release, folder: Path) -> None:
    from dim_export.parity.report_html import render

    write_text(folder / "report.json", release.report.model_dump_json(indent=2) + "\n")
    write_text(folder / "report.html", render(release))
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"wrote {folder / 'report.json'} and {folder / 'report.html'}"
    )


@contextmanager
def _status_line() -> Iterator[Announce]:
    """Show the current step on standard error, if that is a terminal; yield the function that sets it."""
    console = Console(stderr=True)
    with console.status("loading") as status:
        yield status.update
