"""Shared parts of the command-line tools: errors without tracebacks, and the checkpoint argument."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.text import Text

import dim
from dim import files
from dim.documents import parse_json
from dim.download import Progress
from dim.errors import CheckpointError, DimError, InputError
from dim.published import PUBLISHED, locate

CHECKPOINT_HELP = (
    f"OpenMMLab .pth, a state dict, or .safetensors: a path, an https URL, or {', '.join(PUBLISHED)}; "
    "append #sha256=… to check the file, which a URL requires unless its name ends with the digest."
)
"""Help text of an argument whose parser is :func:`checkpoint_file`."""


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, in place of the text.")]
"""Option of commands whose result is a document."""


def require_report(path: Path | None) -> Path | None:
    """Return the file of a report; InputError if it cannot be written, or would replace something else.

    An earlier report, which is one JSON object, is replaced; photographs, models and tables are not.
    """
    if path is None:
        return None
    files.require_writable(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return path
    try:
        found = parse_json(content) if content else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"cannot write the report {path}",
            got="a file that is no report",
            why="it would be lost",
            fix="another name for --report",
        )
    return path


ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also write the result as JSON to this file.",
        callback=require_report,
    ),
]
"""Option of the same commands; the file is tried before the work."""


def version_option(tool: str) -> Any:
    """Return the option ``--version`` of a tool, which prints its name and version and ends it."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{tool} {dim.__version__}")
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="Print the version.")


def publish(document: str, *, as_json: bool, report: Path | None) -> None:
    """Print a result's JSON document to standard output, write it to a file, or both.

    Args:
        document: JSON without a line break at its end.
        as_json: print it.
        report: the file to write; None for none.

    Raises:
        InputError: the report cannot be written, or would replace something else, such as an output.
    """
    if report is not None:
        require_report(report)
        files.write_text(report, document + "\n")
    if as_json:
        typer.echo(document)


def run(app: typer.Typer) -> None:
    """Run a typer application and exit.

    A :class:`DimError` is printed to standard error and sets the exit code; Ctrl-C gives 130. An error of the
    operating system, such as a full disk under standard output, is printed in the same way.
    """
    _escape_file_names()
    _silence_opencv()
    try:
        app()
    except DimError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        place = "standard output" if error.filename is None else os.fsdecode(error.filename)
        _print_error(InputError(f"cannot read or write {place}", why=error.strerror or str(error)))
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _silence_opencv() -> None:
    """Keep OpenCV's own log lines off the terminal: our errors report what they do.

    The environment variable OPENCV_LOG_LEVEL, if it is set, is kept.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        try:
            from cv2.utils import logging
        except ImportError:
            # OpenCV 4.11, in environments with Blender: the function is at the top, and 0 is silent.
            from cv2 import setLogLevel  # type: ignore[attr-defined]

            setLogLevel(0)
            return

        logging.setLogLevel(logging.LOG_LEVEL_SILENT)


def checkpoint_file(text: str) -> Path:
    """Return the local file of a checkpoint argument; see :func:`dim.published.locate`.

    Use it as the parser of a typer argument or option::

        Annotated[Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)]

    Raises:
        CheckpointError: where :func:`~dim.published.locate` raises InputError, because an InputError is a
            ValueError and typer replaces the message of those.
        dim.download.DownloadError: the download failed, or the file is not the published one.
    """
    try:
        with download_bar() as progress:
            return locate(text, progress=progress)
    except InputError as error:
        raise CheckpointError(
            error.problem, got=error.got, expected=error.expected, why=error.why, fix=error.fix
        ) from error


@contextmanager
def download_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a download's progress callback that moves a bar on standard error, shown from its first call."""
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _escape_file_names() -> None:
    """Print characters that the terminal's encoding lacks as escapes: names of files may hold any byte."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_error(error: DimError) -> None:
    # Text, not markup: paths and shapes contain square brackets.
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        Text("error: ", style="bold red") + Text(str(error))
    )
