"""``dim-train``: fit a recipe, score a checkpoint, prepare data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dim import cli_support
from dim.cli_support import checkpoint_file
from dim_training.cli.render import render
from dim_training.cli.samples import samples
from dim_training.cli.test import score

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train and score Deep Image Matting networks."
)


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(help="recipe, TOML")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="further overrides")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path("out/train"),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="override, key=value")] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            parser=checkpoint_file, metavar="CHECKPOINT", help="start from: path, https URL or name"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from OUTPUT/last")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train a recipe; writes last/, best.safetensors, final.safetensors and metrics.csv.

    Several processes: torchrun --nproc_per_node N -m dim_training.cli fit …, or accelerate launch.
    """
    from dim_training.config import read_config
    from dim_training.trainer import Trainer

    recipe = read_config(config, [*(overrides or []), *(more or [])])
    command = shlex.join(["dim-train", *sys.argv[1:]])
    Trainer(recipe, output, init=init, resume=resume, device=device, command=command).fit()


@app.command()
def pack_run(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to make")],
) -> None:
    """Copy a run's last/ and metrics.csv at half the size: enough for others to go on with --resume."""
    from dim_training.pack_run import pack_run as pack

    typer.echo(f"{pack(run, output) / 1e6:.1f} MB in {output}")


app.command("test")(score)
app.command()(samples)
app.command()(render)


@app.command()
def bench_loader(
    config: Annotated[Path, typer.Argument(help="recipe, TOML")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="further overrides")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="override, key=value")] = None,
    samples: Annotated[int, typer.Option(min=1, help="samples to time")] = 200,
    drawn: Annotated[
        float | None, typer.Option(metavar="MEGAPIXELS", help="load drawn files of this size, not data.root")
    ] = None,
) -> None:
    """Time the data of a recipe alone: samples a second, and where one process spends its time."""
    from dim_training.config import read_config
    from dim_training.data.loader_bench import bench, bench_drawn

    recipe = read_config(config, [*(overrides or []), *(more or [])])
    result = bench_drawn(recipe, drawn, samples=samples) if drawn else bench(recipe, samples=samples)
    typer.echo(f"{result.samples_per_second:.1f} samples/s with {result.workers} workers")
    typer.echo(result.profile)


@app.command()
def prepare_cutouts(
    images: Annotated[Path, typer.Argument(help="folder of photographs")],
    alphas: Annotated[Path, typer.Argument(help="folder of their alphas, same stems")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the RGBA files")],
    solve: Annotated[
        bool, typer.Option("--solve", help="alphas are predictions: solve soft parts by closed form")
    ] = False,
) -> None:
    """Turn photographs with alphas into RGBA cut-outs with estimated foreground colours."""
    from dim_training.prepare.cutouts import prepare_cutouts as prepare

    typer.echo(f"{prepare(images, alphas, output, solve=solve)} cut-outs in {output}")


@app.command()
def prepare_comp1k(
    data_root: Annotated[Path, typer.Argument(help="unpacked Adobe archive")],
    coco_root: Annotated[Path, typer.Argument(help="COCO, with train2014 or train2017")],
    voc_root: Annotated[Path, typer.Argument(help="VOCdevkit")],
    composite: Annotated[
        bool, typer.Option("--composite", help="compose the training set off line too")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 4,
    skip_train: Annotated[bool, typer.Option("--skip-train", help="the test set only")] = False,
) -> None:
    """Prepare Composition-1k: backgrounds, composites and annotation lists; an interrupted run goes on."""
    from dim_training.prepare.comp1k.prepare import prepare

    summary = prepare(
        data_root, coco_root, voc_root, composite=composite, workers=workers, skip_train=skip_train
    )
    for part in filter(None, (summary.training, summary.test)):
        typer.echo(f"{part.annotation}: {part.compositions} compositions of {part.foregrounds} foregrounds")
    typer.echo(f"{summary.written} images written, {summary.kept} kept")


def main() -> None:
    """Entry point of ``dim-train``."""
    cli_support.run(app)
