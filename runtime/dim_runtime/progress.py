"""Progress: a callback, or a bar on standard error. Rich is imported only when a bar is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

Progress = Callable[[int, int], object]
"""Called with the windows done and the windows in all, before the first window and after each."""
Advance = Callable[[float], object]
"""Called after each item of a batch, with the megapixels that were computed for it."""


@contextmanager
def reporting(progress: bool | Progress) -> Iterator[Progress | None]:
    """Yield the user's callback, the callback of a new bar (True), or None (False)."""
    if progress is True:
        with _bar() as callback:
            yield callback
    else:
        yield progress or None


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        # Rich draws its bars in notebooks with this package, and nothing without it.
        yield _line
        print(file=sys.stderr)
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("matting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _line(done: int, total: int) -> None:
    """Write the progress over the line before it, on standard error."""
    print(f"\rmatting: {done} of {total} windows", end="", file=sys.stderr, flush=True)


@contextmanager
def counting(items: int, *, shown: bool) -> Iterator[Advance]:
    """Show a bar of a batch on standard error: items, megapixels per second, time left."""
    if not shown:
        yield lambda megapixels: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    rate, left = TextColumn("{task.fields[rate]:.2f} megapixels/s"), TimeRemainingColumn()
    columns = (TextColumn("matting"), BarColumn(), MofNCompleteColumn(), rate, left)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("matting", total=items, rate=0.0)
        started, computed = time.monotonic(), 0.0

        def advance(megapixels: float) -> None:
            nonlocal computed
            computed += megapixels
            bar.update(task, advance=1, rate=computed / max(time.monotonic() - started, 1e-3))

        yield advance
