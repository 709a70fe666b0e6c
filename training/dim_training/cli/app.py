"""``dim-train``: fit a recipe, score a checkpoint, prepare data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dim import cli_support
from dim.cli_support import checkpoint_file, version_option
from dim.extras import require
from dim_training.cli import recipe as recipes
from dim_training.cli.recipe import More, Overrides, Recipe
from dim_training.cli.render import render
from dim_training.cli.samples import samples
from dim_training.cli.test import score

app = typer.Typer(
    no_args_is_help=True,
    help="Train and score Deep Image Matting networks.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
NewFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")]


@app.callback(epilog="Start with: dim-train recipes")
def common(
    *,
    version: Annotated[bool, version_option("dim-train")] = False,
) -> None:
    """Train and score Deep Image Matting networks."""


@app.command(
    epilog="Example: dim-train fit compact -o out/try --set data.kind=procedural steps=200 warmup_steps=20 "
    "decay_steps=100"
)
def fit(
    recipe: Recipe,
    more: More = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")] = Path("out/train"),
    overrides: Overrides = None,
    init: Annotated[
        Path | None,
        typer.Option(
            parser=checkpoint_file,
            metavar="CHECKPOINT",
            help="Start from these weights: a path, an https URL or a published name.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue from OUTPUT/last. Repeat RECIPE and --set; changed settings count from there on.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the same folder.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="auto (the machine's accelerator, or else the CPU), cpu, cuda or cuda:N.")
    ] = "auto",
) -> None:
    """Train a recipe.

    Writes last/, best.safetensors, final.safetensors, config.json, metrics.csv and metrics.jsonl.

    Several processes: torchrun --nproc_per_node N -m dim_training.cli fit …, or accelerate launch.
    """
    config = recipes.read(recipe, overrides, more, task="train")
    if resume and overwrite:
        raise typer.BadParameter("--resume continues the run that --overwrite would remove; choose one.")
    if resume and init is not None:
        raise typer.BadParameter(
            "--resume continues with the run's weights, so that --init is not read; choose one."
        )
    from dim_training.build import build_run
    from dim_training.trainer import Trainer

    command = shlex.join(["dim-train", *sys.argv[1:]])
    run = build_run(
        config, output, init=init, resume=resume, overwrite=overwrite, device=device, command=command
    )
    Trainer(run).fit()


app.command("recipes")(recipes.list_recipes)
app.command("test", epilog="Example: dim-train test best.safetensors --data PHOTOS")(score)


@app.command(
    epilog="Example: dim-train average one/final.safetensors two/final.safetensors -o mean.safetensors"
)
def average(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT...", help="Checkpoints of one network."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors to write.")],
    harden_ends: Annotated[
        bool,
        typer.Option(
            "--harden-ends",
            help="The mean's alpha close to 0 and 1 is moved closer, as network.hardens_ends.",
        ),
    ] = False,
    lift_shadows: Annotated[
        bool,
        typer.Option(
            "--lift-shadows", help="The mean's network reads lifted shadows, as network.lifts_shadows."
        ),
    ] = False,
    sharpen: Annotated[
        bool,
        typer.Option("--sharpen", help="The mean's network reads sharpened colours, as network.sharpens."),
    ] = False,
) -> None:
    """Average the weights of several checkpoints, such as those of a run and of the run that continued it."""
    from dim_training.average import average as write_average

    command = shlex.join(["dim-train", *sys.argv[1:]])
    write_average(
        checkpoints,
        output,
        command=command,
        hardens_ends=harden_ends,
        lifts_shadows=lift_shadows,
        sharpens=sharpen,
    )
    typer.echo(f"the mean of {len(checkpoints)} checkpoints in {output}")


@app.command(epilog="Example: dim-train widen out/compact -o wide.safetensors --width 0.5")
def widen(
    narrow: Annotated[
        Path,
        typer.Argument(parser=checkpoint_file, metavar="CHECKPOINT", help="Weights of the narrow network."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors to write.")],
    width: Annotated[float, typer.Option(help="Width of the network to make; 1 is the published network.")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the shares of a channel's copies.")] = 0,
) -> None:
    """Make a wider network that computes the same alpha; start its training from it with --init."""
    from dim_training.widen import widen as write_wider

    command = shlex.join(["dim-train", *sys.argv[1:]])
    parameters = write_wider(narrow, output, width, seed=seed, command=command)
    typer.echo(f"{parameters / 1e6:.1f} million parameters in {output}")


@app.command(epilog="Example: dim-train pack-run out/own -o packed")
def pack_run(
    run: RunFolder,
    output: NewFolder,
    moments: Annotated[
        bool,
        typer.Option(
            help="Keep the optimiser's moments; without them Adam restarts; at most a quarter of the size."
        ),
    ] = True,
) -> None:
    """Copy a run's last/ and metrics at half the size, so that others can continue it with --resume."""
    require("pack a run", "torch", "accelerate", "safetensors", extra="training")
    from dim_training.pack_run import pack_run as pack

    typer.echo(f"{pack(run, output, moments=moments) / 1e6:.1f} MB in {output}")


@app.command(epilog="Example: dim-train convert-run out/old -o out/new")
def convert_run(
    run: RunFolder,
    output: NewFolder,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="The run's recipe; only needed if RUN has no config.json."),
    ] = None,
) -> None:
    """Convert the state of an earlier version, which holds pickles; nothing in them is run."""
    require("convert a run", "torch", "accelerate", "safetensors", extra="training")
    from dim_training.config import read_config
    from dim_training.convert_run import convert_run as convert

    convert(run, output, None if recipe is None else read_config(recipe).network)
    typer.echo(f"converted to {output}")


app.command(epilog="Example: dim-train samples own -o out/samples --set data.root=DATA")(samples)
app.command(epilog="Example: dim-train render -o DATA/foregrounds/rendered --seeds 1000:1100")(render)


@app.command(epilog="Example: dim-train bench-loader own --set data.root=DATA")
def bench_loader(
    recipe: Recipe,
    more: More = None,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples to time.")] = 200,
    drawn: Annotated[
        float | None,
        typer.Option(
            metavar="MEGAPIXELS", min=0.01, max=200, help="Load drawn files of this size, not data.root."
        ),
    ] = None,
) -> None:
    """Time the data of a recipe alone: samples per second, and where one process spends its time."""
    config = recipes.read(recipe, overrides, more, task="time a loader")
    from dim_training.data.loader_bench import bench, bench_drawn

    result = bench(config, samples=samples) if drawn is None else bench_drawn(config, drawn, samples=samples)
    typer.echo(f"{result.samples_per_second:.1f} samples/s with {result.workers} workers")
    typer.echo(result.profile)


@app.command(epilog="Example: dim-train compose HELD_OUT BACKGROUNDS -o VALIDATION")
def compose(
    foregrounds: Annotated[Path, typer.Argument(help="Folder of RGBA files that nothing is trained on.")],
    backgrounds: Annotated[Path, typer.Argument(help="Folder of images that nothing is trained on.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="New folder for images/, trimaps/, trimaps_wide/ and alphas/."),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of colours, places and trimaps.")] = 0,
    band: Annotated[
        bool,
        typer.Option(
            "--band", help="Add an opaque band to foregrounds such as nets, which have no solid part."
        ),
    ] = False,
    patched: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of foregrounds that get parts of another colour, as data.patched."
        ),
    ] = 0.0,
    softened: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of foregrounds that get a softer border, as data.softened of a recipe."
        ),
    ] = 0.0,
    exponents: Annotated[
        tuple[float, float],
        typer.Option(help="Smallest and largest power of colours that are mixed, 1 to 3, as data.exponents."),
    ] = (1.0, 1.0),
    largest_side: Annotated[
        int | None,
        typer.Option(min=1, help="Reduce larger foregrounds to this longer side, px, such as photographs."),
    ] = None,
) -> None:
    """Compose scenes with exact alpha, one for each foreground, to validate and test with."""
    from dim_training.prepare.scenes import compose_scenes

    written = compose_scenes(
        foregrounds,
        backgrounds,
        output,
        seed=seed,
        band=band,
        patched=patched,
        softened=softened,
        exponents=exponents,
        largest_side=largest_side,
    )
    typer.echo(f"{written} scenes in {output}")


@app.command(epilog="Example: dim-train prepare-cutouts IMAGES ALPHAS -o DATA/foregrounds/mine")
def prepare_cutouts(
    images: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    alphas: Annotated[Path, typer.Argument(help="Folder of their alphas, at the same relative paths.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the RGBA files.")],
    solve: Annotated[
        bool, typer.Option("--solve", help="The alphas are predictions: solve soft parts by closed form.")
    ] = False,
) -> None:
    """Turn photographs with alphas into RGBA cut-outs with estimated foreground colours."""
    require("prepare cut-outs", "pymatting", extra="training")
    from dim_training.prepare.cutouts import prepare_cutouts as prepare

    typer.echo(f"{prepare(images, alphas, output, solve=solve)} cut-outs in {output}")


@app.command(epilog="Example: dim-train prepare-comp1k ADOBE COCO VOCdevkit --composite")
def prepare_comp1k(
    data_root: Annotated[Path, typer.Argument(help="The unpacked Adobe archive.")],
    coco_root: Annotated[Path, typer.Argument(help="COCO, with train2014 or train2017.")],
    voc_root: Annotated[Path, typer.Argument(help="VOCdevkit.")],
    composite: Annotated[
        bool, typer.Option("--composite", help="Compose the training set off line, too.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 4,
    skip_train: Annotated[bool, typer.Option("--skip-train", help="Prepare the test set only.")] = False,
) -> None:
    """Prepare Composition-1k: backgrounds, composites and annotation lists.

    Run the command again after an interruption: files that are complete are kept.
    """
    require("prepare Composition-1k", "PIL", extra="training")
    from dim_training.prepare.comp1k.prepare import prepare

    summary = prepare(
        data_root, coco_root, voc_root, composite=composite, workers=workers, skip_train=skip_train
    )
    for part in filter(None, (summary.training, summary.test)):
        typer.echo(f"{part.annotation}: {part.compositions} compositions of {part.foregrounds} foregrounds")
    typer.echo(f"{summary.written} images written, {summary.kept} kept")


def main() -> None:
    """Run ``dim-train``."""
    cli_support.run(app)
