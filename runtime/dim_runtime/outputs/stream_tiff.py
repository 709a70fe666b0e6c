"""TIFF files that are larger than memory: read, matted, rendered and written window by window.

The alpha lies in a temporary file beside the output until it is rendered: 4 bytes a pixel, float32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dim.files import atomic_path, problem_of, scratch_file
from dim.images import metadata
from dim.images.decoding import MAX_PIXELS, require_pixels
from dim.images.headers import declared_pixels
from dim.images.metadata import Metadata
from dim.images.tiff_reader import TiffReader
from dim_runtime.arrays import by_windows
from dim_runtime.images.pairs import Pair, require_one_size
from dim_runtime.images.tiff_windows import TiffImage, TiffTrimap
from dim_runtime.images.tiff_writer import write_tiff
from dim_runtime.matting import Matting
from dim_runtime.outputs import foreground
from dim_runtime.outputs.render import Renderer, kept_metadata, require_room
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.planning.geometry import Plan

STREAMED_PIXELS = 1 << 26
"""67 megapixels: above, a pair of TIFF files is never held in memory."""
TIFF = (".tif", ".tiff")


class Streamed(NamedTuple):
    """The plan, and the seconds of the matting."""

    plan: Plan
    seconds: float


def streams(image: Path, trimap: Path, out: Path) -> bool:
    """Return whether a pair is read and written by windows: TIFF in, TIFF out, above 67 megapixels."""
    if not all(path.suffix.lower() in TIFF for path in (image, trimap, out)) or problem_of(image) is not None:
        return False
    return (declared_pixels(image) or 0) > STREAMED_PIXELS


def plan_streamed(matting: Matting, image: Path, trimap: Path, spec: OutputSpec) -> Plan:
    """Return the plan of a pair that streams, without running it; errors as in :func:`run_streamed`."""
    with _opened(matting, image, trimap, spec) as (colours, trimap_pixels), TemporaryFile() as file:
        # A sparse file: an array in memory would be planned as held.
        alpha = np.memmap(file, np.float32, "w+", shape=trimap_pixels.shape)
        plan = matting.plan(trimap_pixels, colours, alpha)
        _require_scale(plan, trimap_pixels)
        return plan


def run_streamed(matting: Matting, image: Path, trimap: Path, out: Path, spec: OutputSpec) -> Streamed:
    """Matte one pair of TIFF files into a tiled TIFF; an error leaves no file behind.

    Raises:
        InputError, MissingExtraError: a file that cannot be used; the extra ``tiff`` is not installed.
        TileError, MemoryLimitError: as :class:`Matting`.
    """
    with _opened(matting, image, trimap, spec) as (colours, trimap_pixels):
        kept = kept_metadata(image, metadata.of_tiff(image), spec)
        with atomic_path(out) as temporary, scratch(out, trimap_pixels.shape) as alpha:
            started = time.perf_counter()
            plan = matting.into(colours, trimap_pixels, alpha)
            seconds = time.perf_counter() - started
            _require_scale(plan, trimap_pixels)
            renderer = Renderer(colours, by_windows(alpha), spec)
            _write(temporary, renderer, kept, spec)
    return Streamed(plan, seconds)


@contextmanager
def _opened(
    matting: Matting, image: Path, trimap: Path, spec: OutputSpec
) -> Iterator[tuple[TiffImage, TiffTrimap]]:
    """Yield the readers of a pair, once it is known to be one and the result to have room in memory."""
    _require_guard(image, spec)
    with TiffReader(image) as pixels, TiffReader(trimap) as levels:
        colours, trimap_pixels = TiffImage(pixels), TiffTrimap(levels)
        require_one_size(Pair(image.stem, image, trimap), colours, trimap_pixels)
        require_room(matting.memory_limit, spec, held=colours.buffer_bytes + trimap_pixels.buffer_bytes)
        yield colours, trimap_pixels


def _require_scale(plan: Plan, trimap: TiffTrimap) -> None:
    """Raise InputError for labels such as 0, 1, 2; a file is known to have them only when all was read."""
    if not plan.windows:
        trimap.require_scale()


def _require_guard(image: Path, spec: OutputSpec) -> None:
    """Apply the guard if the user lowered it; the usual one limits memory, of which this takes little."""
    if spec.max_pixels < MAX_PIXELS:
        require_pixels(image, spec.max_pixels)


def _write(path: Path, renderer: Renderer, kept: Metadata, spec: OutputSpec) -> None:
    write_tiff(
        path,
        (renderer.tile(tile) for tile in foreground.tiles(*renderer.shape[:2])),
        shape=renderer.shape,
        dtype=renderer.dtype,
        side=foreground.TILE,
        metadata=kept,
        premultiplied=spec.premultiplied,
    )


@contextmanager
def scratch(out: Path, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a float32 array in a temporary file beside ``out``, which is gone afterwards."""
    with scratch_file(out) as path:
        _allocate(path, 4 * int(np.prod(shape, dtype=np.int64)))
        yield np.memmap(path, np.float32, "r+", shape=shape)


def _allocate(path: Path, size: int) -> None:
    """Allocate a file at once: a disk that fills up later would end the process without an error."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
