"""Progress: a bar on the terminal, or a callback. Rich is imported only when a bar is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dim_runtime.tiling import Progress


@contextmanager
def reporting(progress: bool | Progress) -> Iterator[Progress | None]:
    """What the tiler calls: the user's callback, a bar on standard error, or nothing."""
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
