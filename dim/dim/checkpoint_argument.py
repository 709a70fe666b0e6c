"""The checkpoint argument of command lines: what :func:`dim.published.locate` takes, and a progress bar.

Use it as the parser of a typer argument or option::

    Annotated[Path, typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help=CHECKPOINT_HELP)]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from dim.download import Progress
from dim.errors import CheckpointError, InputError
from dim.published import PUBLISHED, locate

CHECKPOINT_HELP = (
    f"OpenMMLab .pth, a state dict, or .safetensors: a path, an https URL, or {', '.join(PUBLISHED)}; "
    "#sha256=… behind it checks the file, which a URL needs unless its name ends with the digest."
)


def checkpoint_file(text: str) -> Path:
    """The local file of a checkpoint argument; see :func:`dim.published.locate`.

    Raises:
        CheckpointError: what is an InputError there. That is a ValueError too, and typer makes a message of
            its own of those.
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
    """A bar on standard error that a download moves; nothing is shown before it begins."""
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
