"""Files to write for Composition-1k: a few compositions at a time that share one foreground."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dim.arrays import UInt8
from dim_training.data.annotations import Size
from dim_training.prepare.comp1k.files import is_complete_png, write_png
from dim_training.prepare.comp1k.layout import Entry
from dim_training.prepare.comp1k.pixels import composite, fit_background, read_rgb

UNKNOWN_SIZE: Size = (0, 0)
"""Of a foreground that cannot be read: nothing that is there counts as its output."""

_BATCH = 5
"""Compositions of a batch: more read the foreground less often, fewer stop sooner after Ctrl-C."""


class Task(NamedTuple):
    """The outputs of one photograph; None for one that exists or is not required."""

    photograph: Path
    background: Path | None
    merged: Path | None

    @property
    def outputs(self) -> list[Path]:
        """Files that are to be written."""
        return [path for path in (self.background, self.merged) if path is not None]


class Batch(NamedTuple):
    """Tasks on one foreground; ``size`` is its width and height."""

    foreground: Path
    alpha: Path
    size: Size
    tasks: tuple[Task, ...]

    @property
    def files(self) -> int:
        """Number of files that it writes."""
        return sum(len(task.outputs) for task in self.tasks)


def batches(root: Path, entries: list[Entry], *, composed: bool, sizes: dict[str, Size]) -> list[Batch]:
    """Return the batches of all outputs of the entries.

    Args:
        composed: with the composites, not the backgrounds alone.
        sizes: of the foregrounds, by their path in the entry.
    """
    found = []
    for foreground, group in groupby(entries, lambda entry: entry.foreground):
        tasks = [
            Task(entry.photograph, root / entry.background, root / entry.merged if composed else None)
            for entry in group
        ]
        size = sizes.get(foreground.colours, UNKNOWN_SIZE)
        paths = root / foreground.colours, root / foreground.alpha
        found += [Batch(*paths, size, tuple(tasks[i : i + _BATCH])) for i in range(0, len(tasks), _BATCH)]
    return found


def remaining(batch: Batch) -> Batch:
    """Return the batch without its complete outputs; it may have no tasks left."""
    tasks = [_left(task, batch.size) for task in batch.tasks]
    return batch._replace(tasks=tuple(task for task in tasks if task.outputs))


def _left(task: Task, size: Size) -> Task:
    background, merged = (
        None if path is None or is_complete_png(path, size) else path
        for path in (task.background, task.merged)
    )
    return Task(task.photograph, background, merged)


def write(batch: Batch) -> int:
    """Write the outputs of a batch, each of them atomically; return their number."""
    layers = _read_layers(batch) if any(task.merged for task in batch.tasks) else None
    for task in batch.tasks:
        background = _array(fit_background(read_rgb(task.photograph), batch.size))
        if task.background is not None:
            write_png(task.background, background)
        if task.merged is not None:
            assert layers is not None
            foreground, alpha = layers
            write_png(task.merged, composite(foreground, background, alpha))
    return batch.files


def _read_layers(batch: Batch) -> tuple[UInt8, UInt8]:
    return _array(read_rgb(batch.foreground)), _array(read_rgb(batch.alpha))


def _array(image: Image.Image) -> UInt8:
    return np.asarray(image)
