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

from dim.cli_support import AsJson, ReportFile, publish
from dim.errors import InputError
from dim.files import require_no_input
from dim_runtime.batch import storage
from dim_runtime.batch.items import Item, read_items
from dim_runtime.batch.journal import Journal
from dim_runtime.batch.run import (
    ItemResult,
    fingerprint,
    outputs_of,
    remove_leftovers,
    run_items,
    split,
)
from dim_runtime.cli.options import OutputOptions, Quiet, ShowProgress, expand
from dim_runtime.matting import Matting
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.progress import counting
from dim_runtime.settings import MattingOptions

Runner = Callable[[list[Item], str, MattingOptions, OutputSpec], Iterator[ItemResult]]


@expand(OutputOptions)
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A table (.csv, .jsonl) of image, trimap and output; or a folder of pairs, or of images.",
        ),
    ],
    trimaps: Annotated[
        Path | None, typer.Argument(metavar="TRIMAPS", help="The folder of trimaps of the same names.")
    ] = None,
    *,
    folder: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FOLDER", help="The folder to write into, local or s3://…."),
    ],
    options: OutputOptions,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make all outputs again, and replace files of other origin.")
    ] = False,
    as_json: AsJson = False,
    report: ReportFile = None,
    progress: ShowProgress = None,
    quiet: Quiet = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run on a Ray cluster (extra 'ray').")] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of the cluster. The default is RAY_ADDRESS, else a cluster on this machine.",
        ),
    ] = None,
) -> None:
    """Matte many images. After an interruption the same command continues."""
    spec, chosen = options.spec(), options.matting()
    items = read_items(source, trimaps)
    _require_folder(folder)
    require_no_input(outputs_of(items, folder), spec.inputs)
    run = _on_ray(ray_address) if ray or ray_address else _here
    with closing(Journal(folder, fingerprint(chosen, spec), overwrite=overwrite)) as journal:
        todo, settled = split(items, folder, journal, overwrite=overwrite)
        remove_leftovers(folder, todo)
        shown = (sys.stderr.isatty() if progress is None else progress) and not quiet
        made = run(todo, folder, chosen, spec) if todo else iter(())
        results = list(_noted(made, journal, len(todo), shown, settled))
        # Nodes that died may have left temporary files.
        remove_leftovers(folder, todo)
    _conclude(results, report, as_json=as_json, quiet=quiet)


def _here(todo: list[Item], folder: str, chosen: MattingOptions, spec: OutputSpec) -> Iterator[ItemResult]:
    with Matting.from_options(chosen) as matting:
        yield from run_items(matting, todo, folder, spec)


def _noted(
    made: Iterable[ItemResult], journal: Journal, count: int, shown: bool, settled: list[ItemResult]
) -> Iterator[ItemResult]:
    """Yield every result after it is recorded in the journal and shown."""
    for result in settled:
        _print_failure(result)
    yield from settled
    with counting(count, shown=shown) as advance:
        for result in made:
            if result.status == "done":
                journal.finish(result.output, result.inputs, result.output_bytes)
            _print_failure(result)
            advance(result.megapixels)
            yield result


def _print_failure(result: ItemResult) -> None:
    if result.status == "failed":
        typer.echo(f"failed {result.output}: {result.error}", err=True)


def _conclude(results: list[ItemResult], report: Path | None, *, as_json: bool, quiet: bool) -> None:
    counts = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    if not quiet and not as_json:
        typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    document = json.dumps({**counts, "items": [asdict(r) for r in results]}, indent=1)
    publish(document, as_json=as_json, report=report)
    if counts["failed"]:
        raise typer.Exit(1)


def _on_ray(address: str | None) -> Runner:
    def run(todo: list[Item], folder: str, chosen: MattingOptions, spec: OutputSpec) -> Iterator[ItemResult]:
        from dim_runtime.batch.ray import run_on_ray

        return run_on_ray(todo, folder, chosen, spec, address)

    return run


def _require_folder(folder: str) -> None:
    if not storage.is_remote(folder) and storage.local(folder).is_file():
        raise InputError(f"cannot write into {folder}", got="a file", expected="a folder")
