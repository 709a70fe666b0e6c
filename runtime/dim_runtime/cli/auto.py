"""``dim-matte auto``: from a photograph to a cut-out in one command."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dim.errors import InputError
from dim.files import require_no_input
from dim.images.files import require_writable, write_image
from dim_runtime.cli.options import OutputOptions, Quiet, ShowProgress, expand
from dim_runtime.cli.trimap import SourceOptions
from dim_runtime.matting import Matting
from dim_runtime.outputs.pair import run_pair
from dim_runtime.outputs.spec import Output

BOX_HINT = (
    "A box alone suits compact objects whose colours the background does not have. Look at the cut-out; "
    "--save-trimap shows what was found, --scribbles corrects it."
)


@dataclass(frozen=True, kw_only=True)
class AutoOptions(OutputOptions, SourceOptions):
    """The options of commands that write, with the cut-out as the default."""

    out: Annotated[Output, typer.Option("--out", help="The kind of result to write.")] = Output.CUTOUT
    mask: Annotated[
        Path | None, typer.Option(metavar="MASK", help="A mask, or a cut-out with an alpha channel.")
    ] = None


@expand(AutoOptions)
def auto(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photograph.")],
    *,
    out_path: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The cut-out to write: PNG or TIFF.")
    ],
    options: AutoOptions,
    save_trimap: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Also write the trimap, to look at it or correct it.")
    ] = None,
    progress: ShowProgress = None,
    quiet: Quiet = False,
) -> None:
    """Cut out an object without a trimap: from a box, scribbles, a mask, or a model that finds the object.

    Exactly one of --box, --scribbles, --mask, --mask-model and --rembg is needed; --box may come with
    --scribbles, --mask-model or --rembg. From scribbles the network runs twice: its first matte narrows the
    trimap.
    """
    spec = options.spec()
    spec.require_writable(out_path)
    sources = options.sources(
        image=photo,
        mask=options.mask,
        mask_name="--mask",
        fix="--box X,Y,W,H around the object, or dim-matte run if there is a trimap",
        max_pixels=spec.max_pixels,
    )
    outputs = [out_path, *([save_trimap] if save_trimap else [])]
    _require_two_files(out_path, save_trimap)
    require_no_input(outputs, [*sources.inputs, *spec.inputs])
    if save_trimap is not None:
        require_writable(save_trimap)
    made = sources.make()
    show = sys.stderr.isatty() if progress is None else progress
    with (
        tempfile.TemporaryDirectory(prefix="dim-matte-") as folder,
        Matting.from_options(options.matting(), show and not quiet) as matting,
    ):
        made = sources.refined(made, matting)
        if save_trimap is not None:
            write_image(save_trimap, made)
        trimap = Path(folder) / "trimap.png"
        write_image(trimap, made)
        outcome = run_pair(matting, photo, trimap, out_path, spec)
    if not quiet:
        typer.echo(f"{out_path}: {outcome.summary()}")
        others = (options.scribbles, options.mask_model, options.rembg)
        if options.box is not None and others == (None, None, None):
            typer.echo(BOX_HINT, err=True)


def _require_two_files(out_path: Path, save_trimap: Path | None) -> None:
    if save_trimap is not None and os.path.realpath(save_trimap) == os.path.realpath(out_path):
        raise InputError(
            f"cannot write {save_trimap}: it is the result as well",
            why="the result would replace the trimap",
            fix="choose another name for --save-trimap",
        )
