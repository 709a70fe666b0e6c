"""The log of a run: the console, ``metrics.csv``, ``metrics.jsonl``, and TensorBoard if it is on."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dim.arrays import UInt8
from dim.documents import parse_json
from dim.files import atomic_path, write_text

METRICS, METRICS_LINES = "metrics.csv", "metrics.jsonl"
"""Names of the log files: a table with all columns, and one JSON object a row with the values that it has."""
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
        """Join image, trimap, prediction and truth side by side, RGB."""
        planes = (self.trimap, self.prediction, self.truth)
        return np.hstack([self.image, *(np.dstack([plane] * 3) for plane in planes)])


class RunLog:
    """Rows and notes of a run.

    Args:
        folder: the run's folder.
        tensorboard: write event files, too.
        step: rows beyond it are dropped from both files: a resumed run writes them again.
        quiet: write nothing, neither to the console nor to files; for all processes but the main one.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, step: int = 0, quiet: bool = False) -> None:
        self.path, self.lines, self.quiet = folder / METRICS, folder / METRICS_LINES, quiet
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.events = _event_writer(folder) if tensorboard else None
        if not quiet:
            _drop_rows_after(self.path, step)
            _drop_lines_after(self.lines, step)

    def note(self, text: str) -> None:
        """Print a line to the console, which is standard error."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row: console, CSV, JSON lines, TensorBoard scalars."""
        self.console.print("  ".join(f"{name} {value:.5g}" for name, value in row.items()))
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if new:
                writer.writeheader()
            writer.writerow(row)
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["step"])

    def show(self, panels: Sequence[Panel], step: int) -> None:
        """Write panels of photographs to TensorBoard, if it is on."""
        if self.events is not None:
            for panel in panels:
                self.events.add_image(panel.name, panel.picture(), step, dataformats="HWC")

    def progress(self) -> Progress:
        """Return a progress bar over steps, with images per second."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f} images/s"),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=self.console, disable=self.quiet)

    def close(self) -> None:
        """Finish the event files."""
        if self.events is not None:
            self.events.close()


def _event_writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "events"))


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if _is_whole(row) and int(row["step"]) <= step]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _is_whole(row: Mapping[str, str | None]) -> bool:
    """Return whether a row has all its cells: a run that was killed may leave a part of one."""
    return None not in row.values() and (row["step"] or "").isdigit()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text("utf-8", errors="replace").splitlines()
    write_text(path, "".join(f"{line}\n" for line in lines if 0 <= _step_of(line) <= step))


def _step_of(line: str) -> int:
    """Return the step of a row; -1 for the half line that a killed run may leave."""
    try:
        row = parse_json(line)
    except ValueError:
        return -1
    step = row.get("step") if isinstance(row, dict) else None
    return step if isinstance(step, int) else -1
