"""``dim-matte``: mattes, cut-outs and trimaps from the command line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

import dim.cli_support
import dim.trimap
from dim.errors import DimError, InputError
from dim.images.files import MAX_PIXELS, read_mask, require_writable, write_image
from dim_runtime.cli import options
from dim_runtime.cli.batch import batch
from dim_runtime.cli.bench import bench_image
from dim_runtime.errors import ProfileWarning, TrimapWarning
from dim_runtime.images.pairs import Pair, find_pairs
from dim_runtime.matting import Matting
from dim_runtime.outputs.pair import AlphaKind, Foreground, Output, Recipe, describe, plan_pair, run_pair
from dim_runtime.settings import MattingOptions

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Images and trimaps to alpha mattes.")
app.command()(batch)
app.command("bench")(bench_image)


@app.command()
def run(
    image: Annotated[Path, typer.Argument(help="Image, folder, or folder of images/ and trimaps/.")],
    trimap: Annotated[Path | None, typer.Argument(help="Trimap, or folder of the same names.")] = None,
    *,
    out_path: Annotated[
        Path, typer.Option("-o", "--output", help="PNG or TIFF (a composite: or JPEG, WebP), or a folder.")
    ],
    out: options.Out = Output.ALPHA,
    model: options.Model = None,
    foreground: options.Colours = Foreground.ESTIMATED,
    background: options.Background = "#FFFFFF",
    alpha: options.Alpha = AlphaKind.STRAIGHT,
    linear_light: options.LinearLight = False,
    backend: options.Engine = None,
    device: options.Device = "cpu",
    precision: options.Lowered = None,
    tile: options.Tile = 1536,
    context: options.ContextText = "exact",
    threads: options.Threads = None,
    memory_limit: options.MemoryLimit = None,
    depth: options.Bits = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, compute nothing.")] = False,
    progress: options.ShowProgress = None,
) -> None:
    """Matte one image, or a folder of them."""
    bits = options.parse_depth(depth)
    recipe = Recipe(out, foreground, background, bits, max_pixels, alpha, linear_light)
    recipe.check()
    pairs = _pairs(image, trimap)
    if pairs is None and not dry_run:
        recipe.require_writable(out_path)
    limit, around = options.parse_limit(memory_limit), options.parse_context(context)
    chosen = MattingOptions(model, backend, device, precision, tile, around, threads, limit)
    matting = chosen.open(sys.stderr.isatty() if progress is None else progress)
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
        return describe(plan_pair(matting, image, trimap, out_path, recipe))
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
    trimap = dim.trimap.from_mask(read_mask(mask, max_pixels=max_pixels), inside=inside, outside=outside)
    write_image(out_path, trimap)
    share = float(dim.trimap.unknown(trimap).mean())
    typer.echo(f"{out_path}: {trimap.shape[1]}×{trimap.shape[0]} px, {share:.1%} unknown")


@app.command()
def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False
) -> None:
    """Tell what is installed, what runs here, and how to get what is missing."""
    from dim_runtime.cli.doctor import examine, to_json

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            typer.echo(f"[{'ok' if finding.ok else '--'}] {finding.text}")
    if as_json:
        typer.echo(to_json(findings))
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of ``dim-matte``."""
    warnings.showwarning = _show_warning
    for kind in (TrimapWarning, ProfileWarning):
        warnings.simplefilter("always", kind)
    dim.cli_support.run(app)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)
