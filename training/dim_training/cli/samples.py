"""``dim-train samples``: write the training samples of a recipe as files, to inspect or to calibrate with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import typer

from dim.arrays import UInt8
from dim.files import write_bytes
from dim_training.cli.recipe import More, Overrides, Recipe, read

if TYPE_CHECKING:
    from torch import Tensor

    from dim_training.data.dataset import Sample


def samples(
    recipe: Recipe,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for images/, trimaps/ and alphas/.")],
    more: More = None,
    count: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 16,
    overrides: Overrides = None,
    jpeg: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="QUALITY", help="Write the images as JPEG; default: PNG."),
    ] = None,
) -> None:
    """Write the first training samples of a recipe as a folder of pairs with alphas."""
    config = read(recipe, overrides, more, task="draw samples")
    from dim_training.data.dataset import build_dataset

    dataset = build_dataset(config.data, seed=config.seed, length=count)
    for index in range(count):
        write_sample(dataset[index], output, f"{index:04d}", jpeg=jpeg)
    typer.echo(f"{count} samples in {output}")


def write_sample(sample: Sample, folder: Path, name: str, *, jpeg: int | None = None) -> None:
    """Write ``images/NAME``, ``trimaps/NAME.png`` and ``alphas/NAME.png``, 8 bits.

    Args:
        jpeg: quality of the image, 1-100; None writes PNG.
    """
    image = _levels(sample.image).transpose(1, 2, 0)[..., ::-1]
    suffix, options = (".png", []) if jpeg is None else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, jpeg])
    _write(folder / "images" / f"{name}{suffix}", image, options)
    _write(folder / "trimaps" / f"{name}.png", _levels(sample.network_input[3]))
    _write(folder / "alphas" / f"{name}.png", _levels(sample.alpha[0]))


def _levels(values: Tensor) -> UInt8:
    """Return values of 0-1 as 0-255, rounded."""
    rounded: UInt8 = (values * 255).round().clamp(0, 255).byte().numpy()
    return rounded


def _write(path: Path, image: UInt8, options: list[int] | None = None) -> None:
    encoded, content = cv2.imencode(path.suffix, np.ascontiguousarray(image), options or [])
    assert encoded
    write_bytes(path, content.tobytes())
