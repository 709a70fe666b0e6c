"""What a worker does for one request: files in a folder in, files in the same folder out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

import dim.trimap
from dim.arrays import UInt8
from dim.bit_depth import Depth
from dim.errors import InputError
from dim.images.files import read_image, read_mask, read_trimap, write_image
from dim.images.headers import declared_pixels
from dim_runtime.matting import Matting
from dim_runtime.outputs.render import kept_profile, render
from dim_runtime.outputs.spec import Foreground, Output, Recipe
from dim_runtime.serve.limits import TooLargeError
from dim_runtime.trimaps.bands import from_soft_mask, resized_band
from dim_runtime.trimaps.strokes import Box, Strokes, propose, read_strokes

SUFFIXES = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
MEDIA_TYPES = {"png": "image/png", "tiff": "image/tiff", "webp": "image/webp", "jpeg": "image/jpeg"}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files and marks of one request.

    Attributes:
        folder: of the request; results are written into it.
        image, trimap, mask, strokes: uploaded files; None for those that were not sent.
        box: around the object.
        inside, outside: band of a mask, pixels; None chooses it from the mask.
        band: change of the unknown band's width, pixels.
        max_pixels: larger images are refused.
    """

    folder: Path
    image: Path | None = None
    trimap: Path | None = None
    mask: Path | None = None
    strokes: Path | None = None
    box: Box | None = None
    inside: int | None = None
    outside: int | None = None
    band: int = 0
    max_pixels: int

    def check(self) -> None:
        """Refuse sources that are missing, several, or too large, before any work."""
        named = {"trimap": self.trimap, "mask": self.mask, "scribbles or box": self.strokes or self.box}
        given = [name for name, source in named.items() if source is not None]
        if len(given) != 1:
            raise InputError(
                "cannot make a trimap of this request",
                got=" and ".join(given) or "nothing",
                expected="one of trimap, mask, scribbles and box (scribbles and box may come together)",
            )
        for path in (self.image, self.trimap, self.mask, self.strokes):
            pixels = None if path is None else declared_pixels(path)
            if pixels is not None and pixels > self.max_pixels:
                raise TooLargeError(
                    "cannot take the image: it is too large",
                    got=f"{pixels} pixels",
                    expected=f"at most {self.max_pixels}",
                    fix="send a smaller image, or start the server with a larger --max-pixels",
                )


def make_trimap(sources: Sources) -> UInt8:
    """Return the canonical trimap that the sources describe, uint8 H, W.

    Raises:
        InputError: a file that cannot be used, or marks that do not fit.
    """
    if sources.trimap is not None:
        found = dim.trimap.canonical(read_trimap(sources.trimap, max_pixels=sources.max_pixels)).trimap
    elif sources.mask is not None:
        mask = read_mask(sources.mask, max_pixels=sources.max_pixels)
        found = from_soft_mask(mask, inside=sources.inside, outside=sources.outside)
    else:
        found = _proposed(sources)
    return resized_band(found, sources.band) if sources.band else found


def _proposed(sources: Sources) -> UInt8:
    if sources.image is None:
        raise InputError("cannot propose a trimap without the image", expected="the field image")
    image = read_image(sources.image, max_pixels=sources.max_pixels)
    if sources.strokes is None:
        strokes = Strokes.none(*image.shape[:2])
    else:
        strokes = read_strokes(sources.strokes, max_pixels=sources.max_pixels)
    return propose(image, strokes, sources.box)


def make_matte(
    matting: Matting,
    sources: Sources,
    outputs: dict[str, tuple[Recipe, str]],
    progress: Callable[[int, int], object],
) -> None:
    """Compute a matte and write the outputs.

    Args:
        matting: the network.
        sources: what was sent.
        outputs: for each name the way it is made and the format: png, tiff, webp or jpeg.
        progress: called with windows done and in all.
    """
    assert sources.image is not None, "the interface requires the image"
    trimap = make_trimap(sources)
    image = read_image(sources.image, max_pixels=sources.max_pixels)
    alpha = np.empty(trimap.shape, np.float32)
    matting.into(image, trimap, alpha, progress=progress)
    for name, (recipe, kind) in outputs.items():
        profile = kept_profile(sources.image, recipe)
        made = render(image, alpha, recipe)
        write_image(output_file(sources.folder, name, kind), made, profile=profile)


def output_file(folder: Path, name: str, kind: str) -> Path:
    """Return the path of an output in a request's folder."""
    return folder / f"output-{name}{SUFFIXES[kind]}"


def recipe_of(
    output: Output,
    *,
    kind: str,
    foreground: str,
    max_pixels: int,
    background: str = "#FFFFFF",
    depth: int | None = None,
) -> Recipe:
    """Return how an output is made.

    Raises:
        InputError: options that do not fit together.
    """
    if depth not in (None, 8, 16):
        raise InputError("cannot write this depth", got=f"{depth} bits", expected="8 or 16")
    if output is Output.COMPOSITE and not background.startswith("#"):
        # Never a path: a request must not read files of the server.
        raise InputError("cannot use this background", got=repr(background), expected="#RRGGBB")
    recipe = Recipe(
        output=output,
        foreground=Foreground(foreground),
        background=background,
        depth=cast("Depth | None", depth),
        max_pixels=max_pixels,
    )
    recipe.check()
    recipe.require_writable(Path("output" + SUFFIXES[kind]))
    return recipe
