"""``dim-matte trimap``: a trimap from a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import dim.trimap
from dim.files import require_no_input
from dim.images.files import MAX_PIXELS, read_mask, require_writable, write_image
from dim_runtime.cli.options import MaxPixels, Quiet


def trimap(
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="A mask, or a cut-out with an alpha channel.")],
    *,
    out_path: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The PNG or TIFF file to write.")
    ],
    inside: Annotated[
        int, typer.Option(metavar="PX", help="Width of the unknown band inside the object.")
    ] = 10,
    outside: Annotated[
        int, typer.Option(metavar="PX", help="Width of the unknown band outside of the object.")
    ] = 10,
    max_pixels: MaxPixels = MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Make a trimap from a mask: a band of unknown pixels along the object's border."""
    require_writable(out_path)
    require_no_input([out_path], [mask])
    made = dim.trimap.from_mask(read_mask(mask, max_pixels=max_pixels), inside=inside, outside=outside)
    write_image(out_path, made)
    if not quiet:
        share = float(dim.trimap.unknown(made).mean())
        typer.echo(f"{out_path}: {made.shape[1]}×{made.shape[0]} px, {share:.1%} unknown")
