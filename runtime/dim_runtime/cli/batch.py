"""``dim-matte batch``: a table or folders of pairs, resumable, on this machine or on a Ray cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dim.errors import InputError
from dim.files import write_text
from dim.images.files import MAX_PIXELS
from dim_runtime.batch import storage
from dim_runtime.batch.items import Item, read_items
from dim_runtime.batch.journal import Journal
from dim_runtime.batch.run import ItemResult, fingerprint, remove_leftovers, run_items, split
from dim_runtime.cli import options
from dim_runtime.outputs.pair import AlphaKind, Foreground, Output, Recipe
from dim_runtime.progress import counting
from dim_runtime.settings import MattingOptions

Runner = Callable[[list[Item], str, MattingOptions, Recipe], Iterator[ItemResult]]
Source = Annotated[
    str, typer.Argument(help="Table (.csv, .jsonl) of image, trimap and output; or folder(s) of pairs.")
]


def batch(
    source: Source,
    trimaps: Annotated[Path | None, typer.Argument(help="Folder of trimaps of the same names.")] = None,
    *,
    folder: Annotated[str, typer.Option("-o", "--output", help="Folder to write into.")],
    out: options.Out = Output.ALPHA,
    model: options.Model = None,
    foreground: options.Colours = Foreground.ESTIMATED,
    background: options.Background = "#FFFFFF",
    alpha: options.Alpha = AlphaKind.STRAIGHT,
    linear_light: options.LinearLight = False,
    backend: options.Engine = None,
    device: options.Device = "cpu",
    precision: options.Lowered = None,
    tile: options.Tile = 1536,
    context: options.ContextText = "exact",
    threads: options.Threads = None,
    memory_limit: options.MemoryLimit = None,
    depth: options.Bits = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make everything again, whatever is in the folder.")
    ] = False,
    report: Annotated[Path | None, typer.Option("--json", help="Write what came of each item.")] = None,
    progress: options.ShowProgress = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on a Ray cluster (extra 'ray').")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Of the cluster; default: RAY_ADDRESS, else one on this machine.")
    ] = None,
) -> None:
    """Matte many images; interrupted, the same command goes on where it was."""
    bits = options.parse_depth(depth)
    recipe = Recipe(out, foreground, background, bits, max_pixels, alpha, linear_light)
    recipe.check()
    limit, around = options.parse_limit(memory_limit), options.parse_context(context)
    chosen = MattingOptions(model, backend, device, precision, tile, around, threads, limit)
    items = read_items(source, trimaps)
    _require_folder(folder)
    run = _on_ray(ray_address) if ray or ray_address else _here
    with closing(Journal(folder, fingerprint(chosen, recipe), overwrite=overwrite)) as journal:
        todo, settled = split(items, folder, journal, overwrite=overwrite)
        remove_leftovers(folder, todo)
        shown = sys.stderr.isatty() if progress is None else progress
        made = run(todo, folder, chosen, recipe) if todo else iter(())
        results = list(_noted(made, journal, len(todo), shown, settled))
        # Of nodes that died.
        remove_leftovers(folder, todo)
    _conclude(results, report)


def _here(todo: list[Item], folder: str, chosen: MattingOptions, recipe: Recipe) -> Iterator[ItemResult]:
    with chosen.open() as matting:
        yield from run_items(matting, todo, folder, recipe)


def _noted(
    made: Iterable[ItemResult], journal: Journal, count: int, shown: bool, settled: list[ItemResult]
) -> Iterator[ItemResult]:
    """Every result, written down and shown as it comes."""
    for result in settled:
        _tell_failure(result)
    yield from settled
    with counting(count, shown=shown) as advance:
        for result in made:
            if result.status == "done":
                journal.finish(result.output, result.inputs)
            _tell_failure(result)
            advance(result.megapixels)
            yield result


def _tell_failure(result: ItemResult) -> None:
    if result.status == "failed":
        typer.echo(f"failed {result.output}: {result.error}", err=True)


def _conclude(results: list[ItemResult], report: Path | None) -> None:
    counts = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    if report is not None:
        write_text(report, json.dumps({**counts, "items": [asdict(r) for r in results]}, indent=1))
    if counts["failed"]:
        raise typer.Exit(1)


def _on_ray(address: str | None) -> Runner:
    def run(todo: list[Item], folder: str, chosen: MattingOptions, recipe: Recipe) -> Iterator[ItemResult]:
        from dim_runtime.batch.ray import run_on_ray

        return run_on_ray(todo, folder, chosen, recipe, address)

    return run


def _require_folder(folder: str) -> None:
    if not storage.is_remote(folder) and storage.local(folder).is_file():
        raise InputError(f"cannot write into {folder}", got="a file", expected="a folder")
