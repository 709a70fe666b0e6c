"""``dim-matte``: mattes, cut-outs and trimaps from the command line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, cast

import typer

import dim.console
import dim.trimap
from dim.cutout import Depth
from dim.errors import DimError, InputError
from dim_runtime.backends.opening import BackendName
from dim_runtime.errors import TrimapWarning
from dim_runtime.folders import Pair, find_pairs
from dim_runtime.image_io import MAX_PIXELS, read_gray, require_writable, write_image
from dim_runtime.jobs import Foreground, Output, Recipe, describe, read_trimap, run_pair
from dim_runtime.matting import Matting
from dim_runtime.memory import parse_bytes
from dim_runtime.planning import Context

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Images and trimaps to alpha mattes.")


@app.command()
def run(
    image: Annotated[Path, typer.Argument(help="Image, folder, or folder of images/ and trimaps/.")],
    trimap: Annotated[Path | None, typer.Argument(help="Trimap, or folder of the same names.")] = None,
    *,
    out_path: Annotated[Path, typer.Option("-o", "--output", help="PNG or TIFF to write, or a folder.")],
    out: Annotated[Output, typer.Option("--out", help="What to write.")] = Output.ALPHA,
    model: Annotated[Path | None, typer.Option(help="Artefact; default: the embedded model.")] = None,
    foreground: Annotated[
        Foreground, typer.Option(help="Colours of cut-outs: estimated (extra 'cutout'), or the image's own.")
    ] = Foreground.ESTIMATED,
    background: Annotated[str, typer.Option(help="Of a composite: #RRGGBB or an image.")] = "#FFFFFF",
    backend: Annotated[str | None, typer.Option(help="onnxruntime; default: by the model's suffix.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    tile: Annotated[int, typer.Option(help="Largest window side, context included, px.")] = 1536,
    context: Annotated[str, typer.Option(help="exact, or pixels: faster, windows are blended.")] = "exact",
    threads: Annotated[int | None, typer.Option(help="Threads; default: one per physical core.")] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Peak resident memory while matting, such as 2GB.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Bits, 8 or 16; default: the input's.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images.")] = MAX_PIXELS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, compute nothing.")] = False,
    progress: Annotated[bool | None, typer.Option(help="Progress bar; default: on a terminal.")] = None,
) -> None:
    """Matte one image, or a folder of them."""
    recipe = Recipe(out, foreground, background, _depth(depth), max_pixels)
    recipe.check()
    pairs = _pairs(image, trimap)
    if pairs is None and not dry_run:
        require_writable(out_path)
    matting = Matting(
        model,
        # Checked where it is used: one list of names.
        backend=cast("BackendName | None", backend),
        device=device,
        tile=tile,
        context=_context(context),
        threads=threads,
        memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
        progress=sys.stderr.isatty() if progress is None else progress,
    )
    with matting:
        if pairs is not None:
            _run_all(matting, pairs, out_path, recipe, dry_run)
        elif trimap is not None:
            typer.echo(_run_one(matting, image, trimap, out_path, recipe, dry_run))


def _pairs(image: Path, trimap: Path | None) -> list[Pair] | None:
    """The pairs of a folder; None for a single image."""
    if image.is_dir() and (trimap is None or trimap.is_dir()):
        return find_pairs(image, trimap)
    if trimap is None:
        raise InputError(f"cannot matte {image} without a trimap", fix="dim-matte run IMAGE TRIMAP -o OUT")
    if image.is_dir() or trimap.is_dir():
        raise InputError(
            "cannot pair a file with a folder",
            got=f"{image} and {trimap}",
            expected="two files, or two folders with files of the same names",
        )
    return None


def _run_one(
    matting: Matting, image: Path, trimap: Path, out_path: Path, recipe: Recipe, dry_run: bool
) -> str:
    if dry_run:
        return describe(matting.plan(read_trimap(trimap, recipe.max_pixels)))
    return f"{out_path}: {run_pair(matting, image, trimap, out_path, recipe).summary()}"


def _run_all(matting: Matting, pairs: list[Pair], folder: Path, recipe: Recipe, dry_run: bool) -> None:
    """Every pair; a bad one is reported and does not stop the rest."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cannot write into {folder}", got="a file", expected="a folder, as the input")
    failed = 0
    for pair in pairs:
        try:
            image, trimap = pair.files()
            typer.echo(_run_one(matting, image, trimap, folder / f"{pair.name}.png", recipe, dry_run))
        except DimError as error:
            failed += 1
            typer.echo(f"failed {pair.name}: {error}", err=True)
    typer.echo(f"{len(pairs) - failed} done, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _context(text: str) -> Context:
    if text == "exact":
        return "exact"
    if not text.isdigit():
        raise InputError("cannot use this context", got=repr(text), expected="exact, or a number of pixels")
    return int(text)


def _depth(bits: int | None) -> Depth | None:
    if bits not in (None, 8, 16):
        raise InputError("cannot write this depth", got=f"{bits} bits", expected="8 or 16")
    return cast("Depth | None", bits)


@app.command("trimap")
def make_trimap(
    mask: Annotated[Path, typer.Argument(help="Mask: 128 and more is object.")],
    *,
    out_path: Annotated[Path, typer.Option("-o", "--output", help="PNG or TIFF to write.")],
    inside: Annotated[int, typer.Option(help="Width of the unknown band inside the object, px.")] = 10,
    outside: Annotated[int, typer.Option(help="Width of the unknown band outside of it, px.")] = 10,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images.")] = MAX_PIXELS,
) -> None:
    """Make a trimap from a mask: a band of unknown pixels along the object's border."""
    require_writable(out_path)
    trimap = dim.trimap.from_mask(read_gray(mask, max_pixels=max_pixels), inside=inside, outside=outside)
    write_image(out_path, trimap)
    share = float(dim.trimap.unknown(trimap).mean())
    typer.echo(f"{out_path}: {trimap.shape[1]}×{trimap.shape[0]} px, {share:.1%} unknown")


@app.command()
def doctor() -> None:
    """Tell what is installed, what runs here, and how to get what is missing."""
    from dim_runtime.doctor import examine

    broken = False
    for finding in examine():
        typer.echo(f"[{'ok' if finding.ok else '--'}] {finding.text}")
        broken |= finding.needed and not finding.ok
    if broken:
        raise typer.Exit(1)


def main() -> None:
    """Entry point of ``dim-matte``."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", TrimapWarning)
    dim.console.run(app)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)
