"""``dim-matte trimap``: a trimap from a mask, a cut-out, scribbles or a box."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import dim.trimap
from dim.files import require_no_input
from dim.images.decoding import MAX_PIXELS
from dim.images.files import require_writable, write_image
from dim_runtime.cli.options import MaxPixels, Quiet, expand
from dim_runtime.trimaps.mask_model import Layout
from dim_runtime.trimaps.sources import TrimapSources, parse_box

OPTION_NAMES = {
    "strokes": "--scribbles",
    "box": "--box",
    "mask_model": "--mask-model",
    "rembg": "--rembg",
}
"""Options by attribute of :class:`~dim_runtime.trimaps.sources.TrimapSources`."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The options that separate an object from the background, besides a mask."""

    box: Annotated[
        str | None, typer.Option("--box", metavar="X,Y,W,H", help="A box around the object, in pixels.")
    ] = None
    scribbles: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="White over foreground, black over background, gray over unknown, transparent elsewhere.",
        ),
    ] = None
    mask_model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="A salient-object network, such as those of rembg. GrabCut corrects its mask.",
        ),
    ] = None
    mask_layout: Annotated[
        Layout | None,
        typer.Option(help="What the mask model takes. The default follows from rembg's file names."),
    ] = None
    rembg: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A model of the package rembg (extra 'auto'), downloaded if it is not there yet.",
        ),
    ] = None
    inside: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            min=0,
            help="Width of the unknown band inside the object. The default depends on its size.",
        ),
    ] = None
    outside: Annotated[
        int | None,
        typer.Option(metavar="PX", min=0, help="Width of the unknown band outside of the object."),
    ] = None

    def sources(
        self, *, image: Path | None, mask: Path | None, mask_name: str, fix: str, max_pixels: int
    ) -> TrimapSources:
        """Return the one source that was given, validated.

        Args:
            image, mask: of the command.
            mask_name: the argument or option for a mask, as errors name it.
            fix: of the error if there is not exactly one source, or no image.
            max_pixels: larger images are refused.
        """
        found = TrimapSources(
            image=image,
            mask=mask,
            strokes=self.scribbles,
            box=parse_box(self.box),
            mask_model=self.mask_model,
            mask_layout=self.mask_layout,
            rembg=self.rembg,
            inside=self.inside,
            outside=self.outside,
            max_pixels=max_pixels,
        )
        found.require_one({"mask": mask_name, **OPTION_NAMES}, fix=fix)
        return found


@expand(SourceOptions)
def trimap(
    mask: Annotated[
        Path | None, typer.Argument(metavar="[MASK]", help="A mask, or a cut-out with an alpha channel.")
    ] = None,
    *,
    out_path: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The PNG or TIFF file to write.")
    ],
    image: Annotated[
        Path | None, typer.Option(metavar="PHOTO", help="The photograph; for all sources but masks.")
    ] = None,
    options: SourceOptions,
    max_pixels: MaxPixels = MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Make a trimap from a mask or cut-out, or from a box, scribbles or a mask model and the photograph."""
    require_writable(out_path)
    fix = "dim-matte trimap MASK -o TRIMAP, or dim-matte trimap --image PHOTO --box X,Y,W,H -o TRIMAP"
    if mask is not None and image is None:
        fix = f"the argument {mask} is the mask; name a photograph with --image {mask}"
    sources = options.sources(image=image, mask=mask, mask_name="MASK", fix=fix, max_pixels=max_pixels)
    require_no_input([out_path], sources.inputs)
    made = sources.make()
    write_image(out_path, made)
    if not quiet:
        share = float(dim.trimap.unknown(made).mean())
        typer.echo(f"{out_path}: {made.shape[1]}×{made.shape[0]} px, {share:.1%} unknown")
