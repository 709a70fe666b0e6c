"""Start every command of the three tools with `--help`: an incompatible typer, rich or click shows here.

Torch is not needed: commands import what they use when they run.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.testing import CliRunner

TOOLS = {"dim-matte": "dim_runtime.cli", "dim-export": "dim_export.cli", "dim-train": "dim_training.cli"}


def application(module: str) -> typer.Typer:
    """Return the typer application of a tool's `cli` package."""
    found = import_module(f"{module}.app").app
    assert isinstance(found, typer.Typer)
    return found


def commands(tool: str) -> list[list[str]]:
    """Return the words that start each command of a tool, the tool itself first."""
    group: Any = typer.main.get_command(application(TOOLS[tool]))
    return [[], *([name] for name in group.commands)]


def main() -> int:
    """Start all; print the failures; return the exit code."""
    started, failures = 0, []
    for tool, module in TOOLS.items():
        for words in commands(tool):
            started += 1
            result = CliRunner().invoke(application(module), [*words, "--help"])
            if result.exit_code:
                failures.append(f"{' '.join([tool, *words])} --help: {result.exception!r}")
    print("\n".join([*failures, f"{started} commands, {len(failures)} failed to start"]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
