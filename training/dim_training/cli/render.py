"""``dim-train render``: foregrounds with exact alpha, and backgrounds, path-traced by Blender."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dim.errors import DimError


def render(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the images and their index.")],
    seeds: Annotated[str, typer.Option(metavar="FIRST:END", help="Seeds to render; END is not included.")],
    size: Annotated[int, typer.Option(min=16, max=4096, help="Side of the images, px.")] = 480,
    samples: Annotated[int, typer.Option(min=1, help="Light paths for each pixel of the colours.")] = 12,
    alpha_samples: Annotated[int, typer.Option(min=1, help="Paths for each pixel of alpha.")] = 256,
    processes: Annotated[
        int, typer.Option(min=1, help="Blender processes, one core and about 1 GB each.")
    ] = 1,
    subject: Annotated[
        str | None, typer.Option(help="Render this subject only, such as person or net.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Seeds of validation and test sets, 900000 and up.")
    ] = False,
    backgrounds: Annotated[
        bool, typer.Option("--backgrounds", help="Render opaque scenes without alpha, as backgrounds.")
    ] = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Write small composites of all images in OUTPUT to this .jpg or .png.")
    ] = None,
) -> None:
    """Render foregrounds with exact alpha, or backgrounds; a stopped run continues where it was.

    Needs the extra "render" in an environment without PyTorch: see docs/rendering.md.
    """
    from dim_training.data.render.data_set import Settings, read_index, require_sheet, write_contact_sheet
    from dim_training.data.render.run import Failure, render_all
    from dim_training.data.render.seeds import parse_seeds
    from dim_training.data.render.staging import require_subject

    chosen = parse_seeds(seeds, held_out=held_out)
    require_subject(subject)
    if backgrounds and subject is not None:
        raise typer.BadParameter("--subject chooses a foreground; --backgrounds renders none. Choose one.")
    settings = Settings(
        size=size,
        samples=samples,
        alpha_samples=0 if backgrounds else alpha_samples,
        kind="backgrounds" if backgrounds else "foregrounds",
    )
    if contact_sheet is not None:
        # Before the rendering, which takes hours.
        require_sheet(contact_sheet, output)
    failures, done = [], 0
    for result in render_all(output, chosen, settings, processes=processes, subject=subject):
        if isinstance(result, Failure):
            failures.append(result)
            typer.echo(f"seed {result.seed} failed\n{result.text}", err=True)
            continue
        done += 1
        soft = "" if backgrounds else f"  {100 * result.soft:.0f} % soft"
        typer.echo(f"{done}  {result.file}{soft}", err=True)
    typer.echo(f"{done} images rendered, {len(chosen) - done - len(failures)} kept, in {output}")
    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, output, read_index(output))
    if failures:
        listed = ", ".join(str(failure.seed) for failure in failures)
        raise DimError(f"cannot render {len(failures)} of {len(chosen)} seeds", got=listed)
