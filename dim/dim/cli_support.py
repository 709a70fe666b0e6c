"""What the command-line tools share: errors become a message and an exit code, never a traceback."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from dim.errors import DimError


def run(app: typer.Typer) -> None:
    """Run a typer application and exit.

    A :class:`DimError` is printed to standard error and gives its own exit code; Ctrl-C gives 130.
    """
    try:
        app()
    except DimError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_error(error: DimError) -> None:
    # Text, not markup: paths and shapes hold square brackets.
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        Text("error: ", style="bold red") + Text(str(error))
    )
