"""``dim-matte run``: one image, or two folders of the same names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dim.errors import InputError
from dim.files import require_no_input
from dim_runtime.cli.options import OutputOptions, Quiet, ShowProgress, expand
from dim_runtime.errors import error_text
from dim_runtime.images.pairs import Pair, Pairing, pair_up
from dim_runtime.matting import Matting
from dim_runtime.outputs.pair import describe, plan_pair, run_pair

Matte = Callable[[Path, Path, Path], str]
"""Mattes an image and a trimap into an output file; returns a line for the user."""


@expand(OutputOptions)
def run(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="An image, a folder, or a folder of images/ and trimaps/.")
    ],
    trimap: Annotated[
        Path | None, typer.Argument(metavar="TRIMAP", help="The trimap, or the folder of trimaps.")
    ] = None,
    *,
    out_path: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A PNG or TIFF file (composites: also JPEG, WebP), or a folder.",
        ),
    ],
    options: OutputOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; compute and write nothing.")
    ] = False,
    progress: ShowProgress = None,
    quiet: Quiet = False,
) -> None:
    """Matte one image, or all images of a folder."""
    spec = options.spec()
    pairs = _pairs(image, trimap, out_path)
    if pairs is None and not dry_run:
        spec.require_writable(out_path)
        require_no_input([out_path], filter(None, (image, trimap, *spec.inputs)))
    elif pairs is not None and not dry_run:
        inputs = [file for pair in pairs.pairs for file in (pair.image, pair.trimap)]
        require_no_input((_output(out_path, pair) for pair in pairs.pairs), [*inputs, *spec.inputs])
    show = sys.stderr.isatty() if progress is None else progress
    with Matting.from_options(options.matting(), show and not quiet) as matting:

        def matte(image: Path, trimap: Path, out: Path) -> str:
            if dry_run:
                return describe(plan_pair(matting, image, trimap, out, spec))
            return f"{out}: {run_pair(matting, image, trimap, out, spec).summary()}"

        if pairs is not None:
            _run_all(matte, pairs, out_path, quiet=quiet)
        elif trimap is not None:
            _print(matte(image, trimap, out_path), quiet=quiet and not dry_run)


def _print(line: str, *, quiet: bool) -> None:
    if not quiet:
        typer.echo(line)


def _pairs(image: Path, trimap: Path | None, out_path: Path) -> Pairing | None:
    """Return the pairs of a folder; None for a single image."""
    if image.is_dir() and (trimap is None or trimap.is_dir()):
        return pair_up(image, trimap, skip=out_path)
    if trimap is None:
        raise InputError(
            f"cannot matte {image} without a trimap",
            fix="dim-matte run IMAGE TRIMAP -o OUT; make a trimap from a mask with dim-matte trimap",
        )
    if image.is_dir() or trimap.is_dir():
        raise InputError(
            "cannot pair a file with a folder",
            got=f"{image} and {trimap}",
            expected="two files, or two folders with files of the same names",
        )
    return None


def _output(folder: Path, pair: Pair) -> Path:
    return folder / f"{pair.name}.png"


def _run_all(matte: Matte, found: Pairing, folder: Path, *, quiet: bool) -> None:
    """Matte every pair; an error of one is reported and does not stop the rest."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cannot write into {folder}", got="a file", expected="a folder, as the input")
    failed, count = len(found.unpaired), len(found.unpaired) + len(found.pairs)
    for lone in found.unpaired:
        typer.echo(f"failed {lone.name}: {lone.problem}", err=True)
    for pair in found.pairs:
        try:
            _print(matte(pair.image, pair.trimap, _output(folder, pair)), quiet=quiet)
        except Exception as error:  # one damaged pair must not end the others
            failed += 1
            typer.echo(f"failed {pair.name}: {error_text(error)}", err=True)
    _print(f"{count - failed} done, {failed} failed", quiet=quiet)
    if failed:
        raise typer.Exit(1)
