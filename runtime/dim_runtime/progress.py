"""Progress: a callback, or a bar on standard error. Rich is imported only when a bar is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("matting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
