"""Work for one request: files in a folder in, files in the same folder out."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from dim.arrays import Array, UInt8
from dim.bit_depth import Depth
from dim.errors import InputError
from dim.images.files import read_photograph, write_image
from dim.images.headers import declared_pixels
from dim.images.metadata import Metadata
from dim.trimap import unknown
from dim_runtime.errors import NothingUnknownWarning
from dim_runtime.matting import Matting
from dim_runtime.outputs.render import kept_metadata, render
from dim_runtime.outputs.spec import WHITE, Foreground, Output, OutputSpec
from dim_runtime.serve.jobs import Job, Phase
from dim_runtime.serve.limits import TooLargeError, no_storage
from dim_runtime.trimaps.sources import TrimapSources

SUFFIXES = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
MEDIA_TYPES = {"png": "image/png", "tiff": "image/tiff", "webp": "image/webp", "jpeg": "image/jpeg"}

LOSSY_NAMES = {"webp": "WebP", "jpeg": "JPEG"}
"""Formats for composites of 8 bits only."""


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


def make_trimap(sources: TrimapSources, job: Job) -> UInt8:
    """Return the trimap of what was sent, uint8 H, W; the job gets its warnings, of ASCII letters."""
    found: list[Warning] = []
    made = sources.make(check=job.check, warn=found.append)
    job.warnings = list(map(str, found))
    return made


def make_matte(
    matting: Matting, sources: TrimapSources, outputs: dict[str, tuple[OutputSpec, str]], job: Job
) -> None:
    """Compute a matte and write the outputs; the job gets warnings about what was sent.

    Args:
        matting: the network.
        sources: what was sent.
        outputs: for each name the way it is made and the format: png, tiff, webp or jpeg.
        job: the outputs are written into its folder.

    Raises:
        RemovedJobError, TimeLimitError: the job ends early.
    """
    assert sources.image is not None, "the interface requires the image"
    job.begin(Phase.TRIMAP)
    trimap = sources.refined(make_trimap(sources, job), matting, progress=job.progress)
    job.begin(Phase.MATTE)
    image, found = read_photograph(sources.image, max_pixels=sources.max_pixels)
    alpha = np.empty(trimap.shape, np.float32)
    matting.into(image, trimap, alpha, progress=job.progress)
    job.begin(Phase.OUTPUTS)
    for number, (name, (spec, kind)) in enumerate(outputs.items()):
        job.progress(number, len(outputs))
        kept = kept_metadata(sources.image, found, spec)
        made = render(image, alpha, spec)
        write_output(job, name, kind, made, metadata=kept)
    if not unknown(trimap).any():
        job.warnings.append(str(NothingUnknownWarning()))


def write_output(job: Job, name: str, kind: str, made: Array, *, metadata: Metadata | None = None) -> None:
    """Write an output into the job's folder; StorageError if there is no space for it."""
    try:
        write_image(output_file(job.folder, name, kind), made, metadata=metadata)
    except InputError as error:
        # The place is the server's: nothing in the request is wrong.
        if isinstance(error.__cause__, OSError):
            raise no_storage(error.__cause__) from error
        raise


def output_file(folder: Path, name: str, kind: str) -> Path:
    """Return the path of an output in a request's folder."""
    return folder / f"output-{name}{SUFFIXES[kind]}"


def spec_of(
    output: Output,
    *,
    kind: str,
    max_pixels: int,
    foreground: str | None = None,
    background: str | None = None,
    depth: int | None = None,
) -> OutputSpec:
    """Return how an output is made; None for a field that was left out.

    Raises:
        InputError: fields that do not fit together; it names the fields.
    """
    if depth not in (None, 8, 16):
        raise InputError("cannot write this depth", got=f"{depth} bits", expected="8 or 16")
    _require_used(output, "background", background, (Output.COMPOSITE,))
    _require_used(output, "foreground", foreground, (Output.CUTOUT, Output.COMPOSITE))
    _require_holding(output, kind, depth)
    if background is not None and not background.startswith("#"):
        # Never a path: a request must not read files of the server.
        raise InputError("cannot use this background", got=repr(background), expected="#RRGGBB or #RGB")
    spec = OutputSpec(
        output=output,
        foreground=Foreground.ESTIMATED if foreground is None else Foreground(foreground),
        background=WHITE if background is None else background,
        depth=cast("Depth | None", depth),
        max_pixels=max_pixels,
    )
    spec.check()
    return spec


def _require_used(output: Output, field: str, value: str | None, outputs: tuple[Output, ...]) -> None:
    if value is not None and output not in outputs:
        raise InputError(
            f"cannot use the field {field!r} for this output",
            got=f"output={output}",
            expected=" or ".join(f"output={each}" for each in outputs),
            fix=f"leave {field} out",
        )


def _require_holding(output: Output, kind: str, depth: int | None) -> None:
    """Raise InputError for a format that cannot hold the output or its depth."""
    if kind not in LOSSY_NAMES:
        return
    if output is not Output.COMPOSITE:
        noun = {Output.ALPHA: "an alpha", Output.CUTOUT: "a cut-out"}[output]
        raise InputError(
            f"cannot return {noun} as {LOSSY_NAMES[kind]}",
            got=f"format={kind}",
            expected="format=png or format=tiff",
        )
    if depth == 16:
        raise InputError(
            f"cannot return 16 bits as {LOSSY_NAMES[kind]}",
            got=f"format={kind}",
            expected="format=png or format=tiff",
            fix="leave depth out",
        )
