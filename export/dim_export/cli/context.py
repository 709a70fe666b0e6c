"""``dim-export context``: a table of the cost and accuracy of smaller contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from dim.cli_support import AsJson, ReportFile, publish
from dim_export.bench.context import ContextRow, measure, read_trimaps
from dim_runtime.backends.open import BackendName
from dim_runtime.images.pairs import read_samples


def context(
    model: Annotated[Path | None, typer.Argument(help="Artefact. The default is the embedded model.")] = None,
    *,
    images: Annotated[Path, typer.Option(help="Folder of images/, trimaps/ and, to score them, alphas/.")],
    trimaps: Annotated[
        Path | None, typer.Option(help="Folder of further trimaps, for the planned cost only.")
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(help="Largest side of a window, context included, in pixels. The default is auto."),
    ] = None,
    backend: Annotated[
        BackendName | None, typer.Option(help="Inference engine. The default depends on the suffix.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    json: AsJson = False,
    report: ReportFile = None,
) -> None:
    """Measure how much work a smaller context saves, and how much accuracy it costs."""
    rows = measure(
        model,
        list(read_samples(images)),
        trimaps=[] if trimaps is None else read_trimaps(trimaps),
        tile="auto" if tile is None else tile,
        backend=backend,
        threads=threads,
    )
    if not json:
        _show(rows)
    document = TypeAdapter(list[ContextRow]).dump_json(rows, indent=2).decode()
    publish(document, as_json=json, report=report)


def _show(rows: list[ContextRow]) -> None:
    table = Table("context", "cost", "planned cost", "mean difference", "largest", "SAD", "SAD shift")
    exact = rows[0].sad
    for row in rows:
        shift = "" if not exact or row.sad is None else f"{row.sad / exact - 1:+.2%}"
        table.add_row(
            "exact" if row.context is None else f"{row.context} px",
            f"{row.cost:.3f}",
            "" if row.planned_cost is None else f"{row.planned_cost:.3f}",
            f"{row.difference:.1e}",
            f"{row.largest:.3f}",
            "" if row.sad is None else f"{row.sad:.3f}",
            shift,
        )
    Console(highlight=False).print(table)
