"""``dim-matte doctor --gpu``: test every GPU back end here, print a table, and write a report to send."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dim.files import require_writable, write_text

if TYPE_CHECKING:
    from dim_runtime.selftest.report import Report

REPORT = Path("dim-gpu-report.json")


def report_gpu(device: str, output: Path, *, as_json: bool) -> None:
    """Run the self-test, print its table (or JSON), write its JSON, and exit with 1 if a check failed.

    Args:
        device: "cuda" or "cuda:N"; "cpu" tries the flow itself.
        output: JSON file to write.
        as_json: print the JSON in place of the table.
    """
    # The back ends that it imports would slow every other command down.
    from dim_runtime.selftest.run import run_selftest

    require_writable(output)
    with tempfile.TemporaryDirectory() as folder:
        report = run_selftest(device, Path(folder), progress=_show_part)
    write_text(output, report.model_dump_json(indent=2) + "\n")
    typer.echo(report.model_dump_json(indent=2) if as_json else _text(report, output))
    if not report.passed:
        raise typer.Exit(1)


def _show_part(part: str) -> None:
    typer.echo(f"testing {part} …", err=True)


def _text(report: Report, output: Path) -> str:
    return f"{report.table()}\nwrote {output}: docs/gpu.md explains the lines and where to send it"
