"""Scores as people and programs read them: a table, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dim_training.scoring.scores import Region, Score, mean_scores

SHOWN = 60
"""Photographs that a table lists one by one; of more it shows the means alone."""

REGIONS = {
    Region.ALL: "all pixels, as published",
    Region.UNKNOWN: "unknown pixels only",
}


def table(scores: Sequence[Score], *, title: str, region: Region) -> Table:
    """Return the four published columns, a row for each photograph and one of means."""
    made = Table(title=f"{title}: {len(scores)} photographs, {REGIONS[region]}", title_justify="left")
    made.add_column("photograph", overflow="fold")
    for column in ("SAD", "MSE", "GRAD", "CONN"):
        made.add_column(column, justify="right", no_wrap=True)
    for item in scores if len(scores) <= SHOWN else ():
        sad, mse, grad, conn = item.metrics
        made.add_row(item.name, f"{sad:.2f}", f"{mse:.4f}", f"{grad:.2f}", f"{conn:.2f}")
    made.add_section()
    sad, mse, grad, conn = mean_scores(scores)
    made.add_row("mean", f"{sad:.3f}", f"{mse:.5f}", f"{grad:.3f}", f"{conn:.3f}")
    return made


def to_csv(scores: Sequence[Score]) -> str:
    """Return one line for each photograph."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Score._fields)
    writer.writerows(scores)
    return text.getvalue()


def to_json(scores: Sequence[Score], **about: str) -> str:
    """Return the means, the scores of every photograph, and the names in ``about``."""
    document: dict[str, Any] = {
        **about,
        "photographs": len(scores),
        "mean": mean_scores(scores)._asdict(),
        "scores": [item._asdict() for item in scores],
    }
    return json.dumps(document, indent=2) + "\n"
