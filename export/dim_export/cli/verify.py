"""``dim-export verify``, and the same comparison before ``dim-export onnx`` keeps a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast, get_args

import typer
from rich.console import Console

from dim.cli_support import CHECKPOINT_HELP, checkpoint_file
from dim.contract import Precision
from dim.errors import InputError
from dim.extras import require
from dim.files import write_text
from dim_runtime.backends.open import BackendName

if TYPE_CHECKING:
    from dim_export.parity.report import Release, Tell

# torch takes seconds to import: the functions import what they need.


def verify(
    checkpoint: Annotated[
        Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)
    ],
    artefacts: Annotated[list[Path], typer.Argument(metavar="ARTEFACT...", help="Files to compare with it.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Also compare on this folder of images/, trimaps/ and, for scores, alphas/."),
    ] = None,
    float64: Annotated[
        bool,
        typer.Option("--float64", help="Also compare with PyTorch in float64: what rounding alone does."),
    ] = False,
    backend: Annotated[
        str | None, typer.Option(metavar="|".join(get_args(BackendName)), help="Engine that runs them.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(get_args(Precision)), help="Lower the artefacts, where the engine can."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for report.json and report.html.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engines; their own choice by default.")
    ] = None,
    runs: Annotated[int, typer.Option(min=0, help="Timed runs of one window; 0 times nothing.")] = 5,
) -> None:
    """Compare artefacts with a checkpoint through the runtime; exit code 1 if one fails a gate."""
    require("verify an artefact", "torch", "onnxscript", *(["jinja2"] if output else []))
    from dim_export.measure.opened import open_engine
    from dim_export.parity import report as release_report

    name, lowered = _backend_name(backend), _precision(precision)
    with ExitStack() as opened, _telling() as tell:
        engines = []
        for path in artefacts:
            engine = open_engine(path, backend=name, device=device, precision=lowered, threads=threads)
            opened.callback(engine.backend.close)
            engines.append(engine)
        release = release_report.examine(
            checkpoint,
            engines,
            folder=images,
            float64=float64,
            runs=runs,
            command=_command(
                checkpoint,
                artefacts,
                images=images,
                float64=float64,
                backend=backend,
                device=device,
                precision=precision,
                threads=threads,
                runs=runs,
            ),
            tell=tell,
        )
    _publish(release, output, json)
    if not release.report.passed:
        raise typer.Exit(1)


def require_parity(checkpoint: Path, artefact: Path, name: str, threads: int | None) -> None:
    """Compare a new artefact with its checkpoint and print the result under ``name``.

    Raises:
        ParityError: it failed a gate.
    """
    from dim_export.cli.printing import print_parity
    from dim_export.parity import verify as parity
    from dim_export.parity.result import require_passed

    report = parity.verify(checkpoint, artefact, threads=threads).model_copy(update={"artefact": name})
    print_parity(report, Console())
    require_passed(report)


def _publish(release: Release, output: Path | None, json: Path | None) -> None:
    from dim_export.cli.printing import print_release

    text = release.report.model_dump_json(indent=2)
    print_release(release.report, Console())
    if json is not None:
        write_text(json, text + "\n")
    if output is not None:
        from dim_export.parity.report_html import render

        write_text(output / "report.json", text + "\n")
        write_text(output / "report.html", render(release))
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"wrote {output / 'report.json'} and {output / 'report.html'}"
        )


@contextmanager
def _telling() -> Iterator[Tell]:
    """A line on standard error that says what is being done; nothing where that is no terminal."""
    console = Console(stderr=True)
    with console.status("loading") as status:
        yield status.update


def _backend_name(text: str | None) -> BackendName | None:
    for name in get_args(BackendName):
        if name == text:
            return cast(BackendName, name)
    return None if text is None else _refuse("back end", text, get_args(BackendName))


def _precision(text: str | None) -> Precision | None:
    for name in get_args(Precision):
        if name == text:
            return cast(Precision, name)
    return None if text is None else _refuse("precision", text, get_args(Precision))


def _refuse(what: str, text: str, names: tuple[str, ...]) -> NoReturn:
    raise InputError(f"there is no such {what}", got=repr(text), expected=", ".join(names))


def _command(checkpoint: Path, artefacts: list[Path], **options: object) -> str:
    """What to type to repeat it; files without their folders, which are nobody's business."""
    words = ["dim-export verify", checkpoint.name, *(path.name for path in artefacts)]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name}", value.name if isinstance(value, Path) else str(value)]
    return " ".join(words)
