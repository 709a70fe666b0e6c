"""``dim-train test``: the published test protocol for a checkpoint or an exported artefact.

Nothing here loads PyTorch before a checkpoint is opened or other processes are joined.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import track

from dim import files
from dim.cli_support import AsJson, ReportFile, download_bar, publish
from dim.errors import InputError
from dim.published import PUBLISHED, locate
from dim_runtime.images.pairs import Pair
from dim_training.scoring import report
from dim_training.scoring.distributed import Ranks
from dim_training.scoring.evaluate import evaluate, evaluate_saved
from dim_training.scoring.photographs import (
    find_entries,
    find_saved,
    prefetched,
    require_readable,
    survey,
)
from dim_training.scoring.predictors import open_predictor
from dim_training.scoring.scores import Region, Score


class Outputs(NamedTuple):
    """Files and a folder to write beside the table; None is not written."""

    csv: Path | None
    report: Path | None
    alphas: Path | None
    as_json: bool = False


def score(
    data: Annotated[
        Path,
        typer.Option(
            help="A folder with images/, trimaps/ and alphas/, or an annotation file of MMagic (JSON)."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="CHECKPOINT_OR_MODEL",
            help="A checkpoint, the folder of a run or an exported artefact: a path, an https URL, or "
            + ", ".join(PUBLISHED)
            + ".",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Score the saved alphas of this folder, one file for each photograph, in place of a model."
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Root of the annotation file's paths; default: its folder.")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            help="Digest of the model file; a URL needs it unless its name ends with 8 digits of it."
        ),
    ] = None,
    region: Annotated[
        Region | None, typer.Option(help="Pixels that count; default: all for a JSON, unknown for a folder.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N; under torchrun, cuda is one GPU for each process.")
    ] = "cpu",
    tile: Annotated[int | None, typer.Option(help="Artefacts: largest window side, pixels.")] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that compute metrics beside the one that predicts.")
    ] = 1,
    csv: Annotated[
        Path | None, typer.Option(help="Write the scores of every photograph to this file.")
    ] = None,
    as_json: AsJson = False,
    report_file: ReportFile = None,
    alphas: Annotated[Path | None, typer.Option(help="Write the predicted alphas into this folder.")] = None,
) -> None:
    """Score a network as the published tables do: SAD, MSE, GRAD and CONN, and their means.

    A checkpoint sees each photograph as a whole, in PyTorch; an artefact runs in the runtime that ships.
    --predictions scores alphas that any program has saved; their known pixels are set from the trimap.
    Several processes share the photographs: torchrun --nproc_per_node N -m dim_training.cli test …
    """
    outputs = Outputs(csv, report_file, alphas, as_json=as_json)
    model_only = {"--sha256": sha256, "--tile": tile, "--alphas": alphas}
    _require_one_source(model, predictions, [name for name, value in model_only.items() if value is not None])
    _require_writable(outputs)
    ranks = Ranks.from_environment()
    region = region or (Region.UNKNOWN if data.is_dir() else Region.ALL)
    with ranks.joined():
        if model is None:
            assert predictions is not None, "one of the two is given"
            title, about = str(predictions), {"predictions": str(predictions)}
            entries = _readable_entries(data, data_root, ranks)
            saved, mine = find_saved(predictions, entries), ranks.mine(entries)
            _require_no_input(outputs, entries, saved.values())
            found = evaluate_saved(saved, prefetched(mine), region=region, workers=workers)
            scores = _collected(found, len(mine), ranks)
        else:
            path = _model_file(model, sha256, ranks)
            opened = open_predictor(path, device=_device(device, ranks), tile=tile, threads=_threads(ranks))
            with opened as predictor:
                entries = _readable_entries(data, data_root, ranks)
                _require_no_input(outputs, entries, [path])
                mine = ranks.mine(entries)
                found = evaluate(predictor, prefetched(mine), region=region, workers=workers, alphas=alphas)
                scores = _collected(found, len(mine), ranks)
            title, about = path.name, {"model": model, "sha256": files.sha256(path)}
        scores = ranks.gather_items(scores)
    if ranks.is_first:
        _report(scores, title, region, outputs, {**about, "data": str(data), "region": region.value})


def _require_one_source(model: str | None, predictions: Path | None, model_only: Sequence[str]) -> None:
    """Raise InputError unless there is a model or a folder of predictions, with options that fit it."""
    if (model is None) == (predictions is None):
        raise InputError(
            "cannot choose what to score",
            got="neither a model nor --predictions" if model is None else "a model and --predictions",
            expected="one of the two",
        )
    if predictions is not None and model_only:
        raise InputError(
            f"cannot use {', '.join(model_only)} with --predictions", why="saved alphas need no model"
        )


def _require_writable(outputs: Outputs) -> None:
    for path in (outputs.csv, outputs.report):
        if path is not None:
            files.require_writable(path)


def _require_no_input(outputs: Outputs, entries: Sequence[Pair], others: Iterable[Path]) -> None:
    """Raise InputError if an output would replace a file of the photographs, or one of the others."""
    written = [path for path in (outputs.csv, outputs.report) if path is not None]
    if outputs.alphas is not None:
        written += [outputs.alphas / f"{entry.name}.png" for entry in entries]
    read = [
        path for entry in entries for path in (entry.image, entry.trimap, entry.alpha) if path is not None
    ]
    files.require_no_input(written, [*read, *others])


def _model_file(model: str, sha256: str | None, ranks: Ranks) -> Path:
    """Return the local file of a path, URL or published name, checked against its digest if one is known."""
    if Path(model).is_file():
        return locate(model, sha256=sha256)
    with ranks.first_on_each_machine(), download_bar(quiet=not ranks.is_first) as progress:
        return locate(model, sha256=sha256, progress=progress)


def _device(device: str, ranks: Ranks) -> str:
    return f"cuda:{ranks.local_rank}" if device == "cuda" and not ranks.is_alone else device


def _threads(ranks: Ranks) -> int | None:
    """Return this process's share of the cores; None, the engine's own choice, for one process."""
    return None if ranks.local_count == 1 else max(1, (os.cpu_count() or 1) // ranks.local_count)


def _readable_entries(data: Path, data_root: Path | None, ranks: Ranks) -> list[Pair]:
    """Return all photographs, after the processes together have decoded every file once."""
    entries = find_entries(data, data_root)
    found = ranks.gather(survey(ranks.mine(entries)))
    problems = [line for part in found for line in part.problems]
    if problems and not ranks.is_first:
        raise InputError(f"cannot score the photographs of {data}", why="the first process lists the reasons")
    require_readable(data, problems)
    mapped = sum(part.mapped for part in found)
    if mapped and ranks.is_first:
        typer.echo(
            f"{mapped} pixels of the trimaps are not 0, 128 or 255: at most 10 is read as background, "
            "at least 245 as foreground, the rest as unknown",
            err=True,
        )
    return entries


def _collected(scores: Iterable[Score], total: int, ranks: Ranks) -> list[Score]:
    """Return the scores as they are computed, with a progress bar in the first process."""
    hidden = not ranks.is_first or not sys.stderr.isatty()
    return list(track(scores, "scoring", total, console=Console(stderr=True), transient=True, disable=hidden))


def _report(
    scores: Sequence[Score], title: str, region: Region, outputs: Outputs, about: dict[str, str]
) -> None:
    if outputs.csv is not None:
        files.write_text(outputs.csv, report.to_csv(scores))
    publish(report.to_json(scores, **about).rstrip("\n"), as_json=outputs.as_json, report=outputs.report)
    if not outputs.as_json:
        Console().print(report.table(scores, title=title, region=region))
