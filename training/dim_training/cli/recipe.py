"""The recipe argument and its overrides, which several commands share, and ``dim-train recipes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dim.extras import require
from dim_training import recipes

if TYPE_CHECKING:
    from dim_training.config import TrainConfig

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A TOML file, or the name of a shipped recipe: see dim-train recipes."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; more may follow it."),
]
More = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further overrides.")]


def read(recipe: str, overrides: list[str] | None, more: list[str] | None, *, task: str) -> TrainConfig:
    """Read a recipe with its overrides.

    Args:
        task: what the command does, for the error.

    Raises:
        MissingExtraError: the packages of the extra ``training`` are not installed.
        InputError: a recipe that cannot be used.
    """
    require(task, "torch", "accelerate", "safetensors", extra="training")
    from dim_training.config import read_config

    return read_config(recipe, [*(overrides or []), *(more or [])])


def list_recipes() -> None:
    """List the shipped recipes and where their files are."""
    names = recipes.shipped()
    width = max(map(len, names))
    for name, path in names.items():
        typer.echo(f"{name:{width}}  {recipes.summary(path)}")
    typer.echo(f"\nFiles: {next(iter(names.values())).parent}")
