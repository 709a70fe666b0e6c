"""TIFF files of any size, read window by window (extra ``tiff``).

Strips and tiles are decoded by tifffile one by one; of an uncompressed file only the pixels of a window are
read.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dim.arrays import Image
from dim.bit_depth import eight_bits
from dim.errors import InputError, MissingExtraError
from dim.images.files import one_channel, transparent_trimap
from dim_runtime.memory import format_bytes

SEGMENT_LIMIT = 256 << 20
"""Largest strip or tile that is decoded, bytes: it is in memory as a whole."""
MIN_IS_WHITE, MIN_IS_BLACK, RGB, YCBCR = 0, 1, 2, 6
UNCOMPRESSED, CONTIGUOUS = 1, 1
ORIENTATION = 274
FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
"""Orientation -> steps along the stored rows and columns; from 5 on the two change places afterwards."""


def require_tifffile(task: str) -> Any:
    """The library, or MissingExtraError."""
    if find_spec("tifffile") is None:
        raise MissingExtraError(task, package="tifffile", extra="tiff")
    import tifffile

    return tifffile


class TiffReader:
    """The first image of a TIFF file: uint8 or uint16 H, W, samples, upright, as it is stored otherwise.

    Args:
        path: gray, RGB or JPEG-compressed YCbCr, with or without alpha; strips or tiles of any compression
            that tifffile decodes.

    Raises:
        InputError: missing, damaged, or of another kind.
        MissingExtraError: tifffile, or the decoder of this compression, is not installed.
    """

    def __init__(self, path: Path) -> None:
        library = require_tifffile(f"read {path} window by window")
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = library.TiffFile(path)
            self._page: Any = self._file.pages[0]
        except Exception as error:
            raise InputError(
                f"cannot read the image {path}", got="not a TIFF, or damaged", why=str(error)
            ) from error
        try:
            self._examine()
        except BaseException:
            self.close()
            raise

    def _examine(self) -> None:
        page = self._page
        self.stored = (int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel))
        _require_kind(self.path, page)
        self.dtype = np.dtype(page.dtype)
        self._orientation = int(page.tags.valueof(ORIENTATION, 1))
        if self._orientation not in FLIPS:
            self._orientation = 1
        height, width, samples = self.stored
        sides = (width, height) if self._orientation >= 5 else (height, width)
        self.shape = (*sides, samples)
        self._segment = (
            (int(page.tilelength), int(page.tilewidth))
            if page.is_tiled
            else (min(int(page.rowsperstrip), height), width)
        )
        self._raw = page.compression == UNCOMPRESSED and page.is_contiguous and not page.is_tiled
        self._raw &= page.planarconfig == CONTIGUOUS and page.fillorder == 1
        self._require_complete()
        if not self._raw:
            self._require_decodable()

    @property
    def buffer_bytes(self) -> int:
        """Memory that reading takes beside the window: one strip or tile, stored and decoded."""
        return 0 if self._raw else 2 * self._segment_bytes()

    def _segment_bytes(self) -> int:
        return int(math.prod(self._segment) * self.stored[2] * self.dtype.itemsize)

    def _require_complete(self) -> None:
        ends = (at + size for at, size in zip(self._page.dataoffsets, self._page.databytecounts, strict=True))
        found, expected = self.path.stat().st_size, max(ends, default=0)
        if not expected or found < expected:
            raise InputError(
                f"cannot read the image {self.path}",
                got=f"{found} bytes",
                expected=f"at least {expected} bytes",
                why="the file is cut off",
            )

    def _require_decodable(self) -> None:
        size = self._segment_bytes()
        if size > SEGMENT_LIMIT:
            raise InputError(
                f"cannot read the image {self.path} window by window",
                got=f"strips or tiles of {format_bytes(size)}",
                expected=f"at most {format_bytes(SEGMENT_LIMIT)}",
                why="a compressed strip or tile is decoded as a whole",
                fix="store the file in tiles: tiffcp -t IN.tif OUT.tif",
            )
        self._decoded(0)

    def __getitem__(self, key: Any) -> Image:
        """Rows and columns, slices with step 1 -> uint8 or uint16 rows, columns, samples; a copy."""
        parts = key if isinstance(key, tuple) else (key,)
        rows, columns = (_span(part, side) for part, side in zip(_two(parts), self.shape, strict=False))
        if self._orientation >= 5:
            rows, columns = columns, rows
        flips = FLIPS[self._orientation]
        spans = [
            span if step > 0 else (side - span[1], side - span[0])
            for span, side, step in zip((rows, columns), self.stored, flips, strict=False)
        ]
        found = self._read(*spans)[:: flips[0], :: flips[1]]
        return np.ascontiguousarray(found.swapaxes(0, 1) if self._orientation >= 5 else found)

    def _read(self, rows: tuple[int, int], columns: tuple[int, int]) -> Image:
        found: Image = np.zeros((rows[1] - rows[0], columns[1] - columns[0], self.stored[2]), self.dtype)
        if self._raw:
            self._read_raw(rows[0], columns[0], found)
        else:
            self._read_segments(rows, columns, found)
        if self._page.photometric == MIN_IS_WHITE:
            np.subtract(np.iinfo(self.dtype).max, found, out=found)
        return found

    def _read_raw(self, top: int, left: int, found: Image) -> None:
        """Row by row, the window's pixels only."""
        stored = found.view(self.dtype.newbyteorder(self._file.byteorder))
        pixel, start = self.stored[2] * self.dtype.itemsize, int(self._page.dataoffsets[0])
        handle = self._file.filehandle
        with self._lock:
            for y in range(len(stored)):
                handle.seek(start + ((top + y) * self.stored[1] + left) * pixel)
                if handle.readinto(memoryview(stored[y]).cast("B")) < stored[y].nbytes:
                    raise InputError(f"cannot read the image {self.path}", got="a file that is cut off")
        if not stored.dtype.isnative:
            found.byteswap(inplace=True)

    def _read_segments(self, rows: tuple[int, int], columns: tuple[int, int], found: Image) -> None:
        length, width = self._segment
        planes = 1 if self._page.planarconfig == CONTIGUOUS else self.stored[2]
        across, down = -(-self.stored[1] // width), -(-self.stored[0] // length)
        for plane in range(planes):
            target = found if planes == 1 else found[..., plane : plane + 1]
            for y in range(rows[0] // length, -(-rows[1] // length)):
                for x in range(columns[0] // width, -(-columns[1] // width)):
                    segment = self._decoded((plane * down + y) * across + x)
                    if segment is not None:
                        _paste(segment, y * length - rows[0], x * width - columns[0], target)

    def _decoded(self, index: int) -> Image | None:
        """A strip or tile, rows, columns, samples; None for one that the file leaves out: zeros."""
        page = self._page
        with self._lock:
            self._file.filehandle.seek(page.dataoffsets[index])
            content = self._file.filehandle.read(page.databytecounts[index])
        if not content:
            return None
        try:
            segment: Image = page.decode(content, index, jpegtables=page.jpegtables)[0][0]
        except Exception as error:
            raise self._not_decoded(index, str(error)) from error
        return segment

    def _not_decoded(self, index: int, why: str) -> Exception:
        if "imagecodecs" in why:
            task = f"decode {self.path} ({self._page.compression.name} compression)"
            return MissingExtraError(task, package="imagecodecs", extra="tiff")
        return InputError(
            f"cannot read the image {self.path}", got=f"a damaged strip or tile, number {index}", why=why
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _require_kind(path: Path, page: Any) -> None:
    if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16):
        got = f"{page.dtype or 'unknown'} samples of {page.bitspersample} bits"
        raise InputError(f"cannot use the image {path}", got=got, expected="8 or 16 bits")
    jpeg_colours = page.photometric == YCBCR and page.compression in (6, 7)
    known = page.photometric in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) or jpeg_colours
    if not known or page.samplesperpixel > 4 or page.imagedepth != 1:
        raise InputError(
            f"cannot use the image {path}",
            got=f"{page.photometric!r} with {page.samplesperpixel} samples",
            expected="gray or RGB, with or without alpha",
        )


class TiffImage:
    """What a matting takes, from a :class:`TiffReader`: uint8 or uint16 H, W, 3, RGB, by slices."""

    def __init__(self, reader: TiffReader) -> None:
        self._reader = reader
        self.shape = (*reader.shape[:2], 3)
        self.dtype, self.buffer_bytes = reader.dtype, reader.buffer_bytes

    def __getitem__(self, key: Any) -> Image:
        found = self._reader[key]
        return np.repeat(found[..., :1], 3, axis=2) if found.shape[2] < 3 else found[..., :3]


class TiffTrimap:
    """A trimap from a :class:`TiffReader`: uint8 H, W, by slices.

    Raises:
        InputError: an alpha channel here; colours when they are read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, reader: TiffReader) -> None:
        if reader.shape[2] in (2, 4):
            raise transparent_trimap(reader.path)
        self._reader = reader
        self.shape, self.buffer_bytes = reader.shape[:2], reader.buffer_bytes

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        levels = eight_bits(self._reader[key])
        return one_channel(levels[..., 0] if levels.shape[2] == 1 else levels, self._reader.path)


def _two(parts: Sequence[Any]) -> tuple[Any, Any]:
    return (*parts, slice(None))[:2]


def _span(part: slice, side: int) -> tuple[int, int]:
    start, stop, step = part.indices(side)
    if step != 1:
        raise IndexError("a TIFF file is read by slices with step 1")
    return start, max(start, stop)


def _paste(segment: Image, y: int, x: int, found: Image) -> None:
    """Put a segment whose corner is at y, x of what is wanted there, cut to it."""
    bottom, right = min(y + len(segment), len(found)), min(x + segment.shape[1], found.shape[1])
    top, left = max(y, 0), max(x, 0)
    found[top:bottom, left:right] = segment[top - y : bottom - y, left - x : right - x]
