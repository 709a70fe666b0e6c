"""What a run tells: the console, ``metrics.csv``, and TensorBoard with image panels where asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dim.arrays import UInt8
from dim.files import atomic_path

COLUMNS = (
    "step",
    "seconds",
    "images_per_second",
    "waiting",
    "learning_rate",
    "loss",
    "loss_alpha",
    "loss_comp",
    "loss_refine",
    "loss_laplacian",
    "loss_cross_entropy",
    "sad",
    "mse",
    "grad",
    "conn",
)


class Panel(NamedTuple):
    """One photograph while training: ``image`` uint8 H, W, 3 RGB; the others uint8 H, W."""

    name: str
    image: UInt8
    trimap: UInt8
    prediction: UInt8
    truth: UInt8

    def picture(self) -> UInt8:
        """Image, trimap, prediction and truth side by side, RGB."""
        planes = (self.trimap, self.prediction, self.truth)
        return np.hstack([self.image, *(np.dstack([plane] * 3) for plane in planes)])


class Journal:
    """Writes rows of a run into a folder.

    Args:
        step: rows beyond it are dropped from ``metrics.csv``: a resumed run writes them again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, step: int = 0) -> None:
        self.path = folder / "metrics.csv"
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.events = _event_writer(folder) if tensorboard else None
        _drop_rows_after(self.path, step)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row: console, CSV, TensorBoard scalars."""
        self.console.print("  ".join(f"{name} {value:.5g}" for name, value in row.items()))
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["step"])

    def show(self, panels: Sequence[Panel], step: int) -> None:
        """TensorBoard panels of photographs, where TensorBoard is on."""
        if self.events is not None:
            for panel in panels:
                self.events.add_image(panel.name, panel.picture(), step, dataformats="HWC")

    def progress(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f} images/s"),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=self.console)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()


def _event_writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "events"))


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        # A run that was killed may leave half a line.
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) <= step]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
