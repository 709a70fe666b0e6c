"""``dim-train``: fit a recipe, score a checkpoint, prepare data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dim import console

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
    init: Annotated[Path | None, typer.Option(help="checkpoint to start from")] = None,
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
    trainer = Trainer(recipe, output, init=init, device=device, command=command)
    if resume:
        trainer.resume()
    trainer.fit()


@app.command()
def test(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint to score")],
    data: Annotated[Path, typer.Option(help="folder with images/, trimaps/ and alphas/")],
) -> None:
    """Score a checkpoint: SAD (unknown pixels, /1000) and MSE of each photograph, and their means."""
    from rich.console import Console
    from rich.table import Table

    from dim.checkpoint import load
    from dim_training.evaluate import mean_sad, read_photographs, score_network

    scores = score_network(load(checkpoint), read_photographs(data))
    table = Table("photograph", "SAD", "MSE", title=checkpoint.name)
    for item in scores:
        table.add_row(item.name, f"{item.sad:.2f}", f"{item.mse:.4f}")
    table.add_section()
    table.add_row("mean", f"{mean_sad(scores):.3f}", f"{sum(item.mse for item in scores) / len(scores):.5f}")
    Console().print(table)


@app.command()
def prepare_cutouts(
    images: Annotated[Path, typer.Argument(help="folder of photographs")],
    alphas: Annotated[Path, typer.Argument(help="folder of their alphas, same stems")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the RGBA files")],
) -> None:
    """Turn photographs with alphas into RGBA cut-outs with estimated foreground colours."""
    from dim_training.cutouts import prepare_cutouts as prepare

    typer.echo(f"{prepare(images, alphas, output)} cut-outs in {output}")


def main() -> None:
    """Entry point of ``dim-train``."""
    console.run(app)


if __name__ == "__main__":
    main()
