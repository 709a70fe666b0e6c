"""What a worker does for one request: files in a folder in, files in the same folder out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from dim.bit_depth import Depth
from dim.errors import InputError
from dim.images.files import read_photograph, write_image
from dim.images.headers import declared_pixels
from dim_runtime.matting import Matting
from dim_runtime.outputs.render import kept_metadata, render
from dim_runtime.outputs.spec import Foreground, Output, OutputSpec
from dim_runtime.serve.limits import TooLargeError
from dim_runtime.trimaps.sources import TrimapSources

SUFFIXES = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
MEDIA_TYPES = {"png": "image/png", "tiff": "image/tiff", "webp": "image/webp", "jpeg": "image/jpeg"}


def require_small(sources: TrimapSources) -> None:
    """Raise TooLargeError for a file whose header declares more pixels than the server takes."""
    for path in sources.inputs:
        pixels = declared_pixels(path)
        if pixels is not None and pixels > sources.max_pixels:
            raise TooLargeError(
                "cannot take the image: it is too large",
                got=f"{pixels} pixels",
                expected=f"at most {sources.max_pixels}",
                fix="send a smaller image, or start the server with a larger --max-pixels",
            )


def make_matte(
    matting: Matting,
    sources: TrimapSources,
    folder: Path,
    outputs: dict[str, tuple[OutputSpec, str]],
    progress: Callable[[int, int], object],
) -> None:
    """Compute a matte and write the outputs.

    Args:
        matting: the network.
        sources: what was sent.
        folder: of the request; the outputs are written into it.
        outputs: for each name the way it is made and the format: png, tiff, webp or jpeg.
        progress: called with windows done and in all.
    """
    assert sources.image is not None, "the interface requires the image"
    trimap = sources.make()
    image, found = read_photograph(sources.image, max_pixels=sources.max_pixels)
    alpha = np.empty(trimap.shape, np.float32)
    matting.into(image, trimap, alpha, progress=progress)
    for name, (spec, kind) in outputs.items():
        kept = kept_metadata(sources.image, found, spec)
        made = render(image, alpha, spec)
        write_image(output_file(folder, name, kind), made, metadata=kept)


def output_file(folder: Path, name: str, kind: str) -> Path:
    """Return the path of an output in a request's folder."""
    return folder / f"output-{name}{SUFFIXES[kind]}"


def spec_of(
    output: Output,
    *,
    kind: str,
    foreground: str,
    max_pixels: int,
    background: str = "#FFFFFF",
    depth: int | None = None,
) -> OutputSpec:
    """Return how an output is made.

    Raises:
        InputError: options that do not fit together.
    """
    if depth not in (None, 8, 16):
        raise InputError("cannot write this depth", got=f"{depth} bits", expected="8 or 16")
    if output is Output.COMPOSITE and not background.startswith("#"):
        # Never a path: a request must not read files of the server.
        raise InputError("cannot use this background", got=repr(background), expected="#RRGGBB")
    spec = OutputSpec(
        output=output,
        foreground=Foreground(foreground),
        background=background,
        depth=cast("Depth | None", depth),
        max_pixels=max_pixels,
    )
    spec.check()
    spec.require_writable(Path("output" + SUFFIXES[kind]))
    return spec
