"""Errors of the operating system end the command-line tools as ours do: exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NAMED = "import typer, dim.cli_support\napp = typer.Typer()\n@app.command()\ndef f():\n    "


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output() -> None:
    """``dim-matte --version > /dev/full``."""
    command = [sys.executable, "-c", "from dim_runtime.cli import main; main()", "--version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read or write standard output\n  why: No space left")
    assert "Traceback" not in done.stderr


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    code = f"{NAMED}open({str(tmp_path / 'gone.txt')!r})\ndim.cli_support.run(app)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot read or write {tmp_path / 'gone.txt'}\n  why: No such file")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    code = f"{NAMED}raise KeyError('ours')\ndim.cli_support.run(app)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KeyError" in done.stderr
