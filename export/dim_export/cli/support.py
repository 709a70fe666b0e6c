"""Parts of several commands: progress bar, parser of shapes, and the command line that repeats a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from dim.errors import InputError

BATCH = "N,H,W"
"""Axes of ``--shape`` and of the shapes of an engine: batch, height and width, pixels."""
WINDOW = "H,W"
"""Axes of ``--windows``: height and width, pixels."""
_EXAMPLES = {BATCH: "1,512,768", WINDOW: "512,768"}


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error, if that is a terminal; yield its callback (done, total)."""
    shown = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def parse_axes(text: str, axes: str, option: str) -> tuple[int, ...]:
    """Parse the value of an option: whole numbers, one for each axis.

    Args:
        text: such as ``"1,512,768"``.
        axes: :data:`BATCH` or :data:`WINDOW`.
        option: name of the option, for the error.

    Raises:
        InputError: another number of axes, or something other than digits.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(axes.split(",")) or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(
            f"cannot read {option}", got=repr(text), expected=f"{axes}, such as {_EXAMPLES[axes]}"
        )
    return tuple(map(int, parts))


def command_line(
    command: str, sources: Sequence[Path], output: Path | None, options: Mapping[str, object]
) -> str:
    """Return the command that repeats a run, for the metadata; files appear without their folders.

    Args:
        command: such as ``"onnx"``.
        options: value of each option; None and False are left out, True is a flag, a list repeats the option.
    """
    words = ["dim-export", command, *(source.name for source in sources)]
    words += [] if output is None else ["-o", output.name]
    for name, value in options.items():
        for part in value if isinstance(value, list) else [value]:
            if part is True:
                words.append(name)
            elif part is not None and part is not False:
                words += [name, part.name if isinstance(part, Path) else str(part)]
    return shlex.join(words)


def require_suffix(output: Path, suffix: str) -> None:
    """Raise InputError for a folder, or for an output file of another suffix."""
    if output.is_dir():
        raise InputError(
            f"cannot write {output}",
            got="a folder",
            expected=f"a file: {suffix}",
            fix=f"-o {output / ('model' + suffix)}",
        )
    if output.suffix != suffix:
        raise InputError(
            f"cannot write {output}",
            got=f"suffix {output.suffix!r}",
            expected=suffix,
            fix=f"-o {output.with_suffix(suffix)}",
        )
