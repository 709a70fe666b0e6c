"""TIFF files, whole or window by window, decoded by tifffile (extra ``tiff``).

OpenCV's decoder reads several layouts as something else without an error: separate planes of 16 bits, codecs
that its libtiff lacks, damaged strips of 8 bits, 16 bits where white is zero. Here every strip or tile is
decoded and checked by itself. Of an uncompressed file only the pixels of a window are read.
"""

from __future__ import annotations

import io
import logging
import math
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dim.arrays import Image
from dim.errors import DimError, InputError, MissingExtraError
from dim.images import headers, tiff_tags

SEGMENT_LIMIT = 256 << 20
"""Bytes of the largest strip or tile that is decoded for a window: it is in memory as a whole."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
"""Samples of a pixel that hold its colour, by photometric interpretation."""
UNCOMPRESSED, CONTIGUOUS = 1, 1
JPEG = (6, 7)
"""Compressions whose decoder also converts YCbCr to RGB."""
SMALL_DEPTHS = (1, 2, 4)
"""Bits of a sample that are scaled to 8."""
MOST_SAMPLES = 32
"""Samples of a pixel; more are refused."""


def has_tifffile() -> bool:
    """Return whether tifffile is installed."""
    try:
        return find_spec("tifffile") is not None
    except ValueError:  # a module that was blocked on purpose
        return False


def require_tifffile(task: str) -> Any:
    """Return the library; MissingExtraError if it is not installed."""
    if not has_tifffile():
        raise MissingExtraError(task, package="tifffile", extra="tiff")
    import tifffile

    # Damage is reported by our errors; a program that configures logging still sees tifffile's lines.
    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return tifffile


class TiffReader:
    """The first image of a TIFF file, upright: uint8 or uint16 H, W, samples.

    Samples are gray, gray and alpha, RGB, or RGB and alpha. Palettes and CMYK become RGB, 1, 2 and 4 bits
    become 8, and zero is always black. Of several extra samples the first is the alpha.

    Attributes:
        path: the file.
        shape: height, width, samples.
        dtype: uint8 or uint16, in native byte order.
        associated: whether colours are stored times alpha.
        orientation: orientation of the stored pixels, 1 to 8; it is applied.

    Args:
        path: strips or tiles of any compression that tifffile decodes.
        windows: whether windows will be read: a strip or tile must then be small.

    Raises:
        InputError: missing, damaged, or of another kind.
        MissingExtraError: tifffile, or the decoder of this compression, is not installed.
    """

    def __init__(self, path: Path, *, windows: bool = True) -> None:
        library = require_tifffile(f"read {path} (a TIFF file)")
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = library.TiffFile(path)
        except Exception as error:  # tifffile and its decoders have no common class of errors
            raise _damaged(path, error) from error
        try:
            self._page: Any = self._file.pages[0]
            self._examine(windows)
        except DimError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise _damaged(path, error) from error

    def _examine(self, windows: bool) -> None:
        page = self._page
        _require_tags(self.path, page)
        _require_kind(self.path, page)
        height, width = int(page.imagelength), int(page.imagewidth)
        self._stored = (height, width, int(page.samplesperpixel))
        self._stored_dtype = np.dtype(page.dtype if page.bitspersample > 1 else np.uint8)
        self._colours = COLOURS[page.photometric]
        has_alpha = self._stored[2] > self._colours
        self.orientation = int(page.tags.valueof(tiff_tags.ORIENTATION, 1))
        if self.orientation not in tiff_tags.FLIPS:
            self.orientation = 1
        self.associated = has_alpha and tuple(page.extrasamples[:1]) == (tiff_tags.ASSOCIATED_ALPHA,)
        self._palette = _palette(page) if page.photometric == PALETTE else None
        sides = (width, height) if self.orientation >= 5 else (height, width)
        is_gray = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        self.shape = (*sides, (1 if is_gray else 3) + has_alpha)
        self.dtype = self._stored_dtype if self._palette is None else self._palette.dtype
        self._segment = (
            (int(page.tilelength), int(page.tilewidth))
            if page.is_tiled
            else (min(int(page.rowsperstrip), height), width)
        )
        self._raw = page.compression == UNCOMPRESSED and page.is_contiguous and not page.is_tiled
        self._raw &= page.planarconfig == CONTIGUOUS and page.fillorder == 1 and page.bitspersample >= 8
        self._planes = 1 if page.planarconfig == CONTIGUOUS else self._stored[2]
        self._require_complete()
        if not self._raw:
            self._require_decodable(windows)

    @property
    def buffer_bytes(self) -> int:
        """Memory that reading takes beside the window: one strip or tile, stored and decoded."""
        return 0 if self._raw else 2 * self._segment_bytes()

    def _segment_bytes(self) -> int:
        return int(math.prod(self._segment) * self._stored[2] * self._stored_dtype.itemsize)

    def _require_complete(self) -> None:
        """Raise an InputError if strips or tiles are missing, or lie beyond the end of the file."""
        places = list(self._page.dataoffsets), list(self._page.databytecounts)
        down, across = (-(-side // part) for side, part in zip(self._stored, self._segment, strict=False))
        expected = 1 if self._raw else self._planes * down * across
        # Tags of signed types may hold negative places.
        if any(place < 0 for place in places[0] + places[1]):
            raise InputError(
                f"cannot read the image {self.path}",
                got=f"a strip or tile of {min(places[1])} bytes at byte {min(places[0])}",
                why="the file is damaged",
            )
        if len(places[0]) != len(places[1]) or len(places[0]) < expected:
            raise InputError(
                f"cannot read the image {self.path}",
                got=f"{len(places[0])} offsets and {len(places[1])} sizes of strips or tiles",
                expected=f"{expected} of each",
                why="the file is damaged",
            )
        end = max((at + size for at, size in zip(*places, strict=True)), default=0)
        if self._raw:
            # Strips of an uncompressed file are read as one block.
            end = max(end, places[0][0] + math.prod(self._stored) * self._stored_dtype.itemsize)
        found = self.path.stat().st_size
        if not end or found < end:
            raise InputError(
                f"cannot read the image {self.path}",
                got=f"{found} bytes",
                expected=f"at least {end} bytes",
                why="the file is cut off",
            )

    def _require_decodable(self, windows: bool) -> None:
        size = self._segment_bytes()
        whole = 2 * math.prod(self._stored) * self._stored_dtype.itemsize
        limit = SEGMENT_LIMIT if windows else max(SEGMENT_LIMIT, whole)
        if size > limit:
            raise InputError(
                f"cannot read the image {self.path} window by window",
                got=f"strips or tiles of {size} bytes",
                expected=f"at most {limit} bytes",
                why="a compressed strip or tile is decoded as a whole",
                fix="store the file in tiles: tiffcp -t IN.tif OUT.tif",
            )
        self._decoded(0)

    def __getitem__(self, key: Any) -> Image:
        """Return rows and columns, slices with step 1, as uint8 or uint16 rows, columns, samples; a copy."""
        parts = key if isinstance(key, tuple) else (key,)
        rows, columns = (_span(part, side) for part, side in zip(_two(parts), self.shape, strict=False))
        if self.orientation >= 5:
            rows, columns = columns, rows
        flips = tiff_tags.FLIPS[self.orientation]
        spans = [
            span if step > 0 else (side - span[1], side - span[0])
            for span, side, step in zip((rows, columns), self._stored, flips, strict=False)
        ]
        found = self._converted(self._read(*spans))
        return np.ascontiguousarray(tiff_tags.upright(found, self.orientation))

    def _converted(self, stored: Image) -> Image:
        """Return gray or RGB, with alpha if there is one, of stored samples."""
        bits, photometric = self._page.bitspersample, self._page.photometric
        if bits in SMALL_DEPTHS:
            # The first sample of a palette image is an index.
            stored[..., 0 if self._palette is None else 1 :] *= np.uint8(255 // (2**bits - 1))
        if photometric == WHITE_IS_ZERO:
            stored[..., :1] = np.iinfo(stored.dtype).max - stored[..., :1]
        colours, extra = stored[..., : self._colours], stored[..., self._colours : self._colours + 1]
        if self._palette is not None:
            colours = self._palette[colours[..., 0]]
        elif photometric == CMYK:
            colours = _rgb_of_cmyk(colours)
        else:
            return stored[..., : self._colours + 1]
        return np.dstack([colours, extra]) if extra.shape[2] else colours

    def _read(self, rows: tuple[int, int], columns: tuple[int, int]) -> Image:
        shape = rows[1] - rows[0], columns[1] - columns[0], self._stored[2]
        found: Image = np.zeros(shape, self._stored_dtype)
        if self._raw:
            self._read_raw(rows[0], columns[0], found)
        else:
            self._read_segments(rows, columns, found)
        return found

    def _read_raw(self, top: int, left: int, found: Image) -> None:
        """Read row by row, the window's pixels only."""
        stored = found.view(self._stored_dtype.newbyteorder(self._file.byteorder))
        pixel, start = self._stored[2] * self._stored_dtype.itemsize, int(self._page.dataoffsets[0])
        handle = self._file.filehandle
        with self._lock:
            for y in range(len(stored)):
                handle.seek(start + ((top + y) * self._stored[1] + left) * pixel)
                if handle.readinto(memoryview(stored[y]).cast("B")) < stored[y].nbytes:
                    raise InputError(f"cannot read the image {self.path}", got="a file that is cut off")
        if not stored.dtype.isnative:
            found.byteswap(inplace=True)

    def _read_segments(self, rows: tuple[int, int], columns: tuple[int, int], found: Image) -> None:
        length, width = self._segment
        across, down = -(-self._stored[1] // width), -(-self._stored[0] // length)
        for plane in range(self._planes):
            target = found if self._planes == 1 else found[..., plane : plane + 1]
            for y in range(rows[0] // length, -(-rows[1] // length)):
                for x in range(columns[0] // width, -(-columns[1] // width)):
                    segment = self._decoded((plane * down + y) * across + x)
                    if segment is not None:
                        _paste(segment, y * length - rows[0], x * width - columns[0], target)

    def _decoded(self, index: int) -> Image | None:
        """Return a strip or tile, rows, columns, samples; None for one that is left out: zeros."""
        page = self._page
        offset, size = int(page.dataoffsets[index]), int(page.databytecounts[index])
        # A sparse file has neither offset nor size.
        if not offset and not size:
            return None
        with self._lock:
            self._file.filehandle.seek(offset)
            content = self._file.filehandle.read(size)
        try:
            self._require_no_bomb(content)
            segment: Any = page.decode(content, index, jpegtables=page.jpegtables)[0][0]
            if segment.dtype not in (self._stored_dtype, np.bool_):
                raise ValueError(f"{segment.dtype} samples inside, {self._stored_dtype} declared")
        except Exception as error:  # each decoder raises its own
            raise self._not_decoded(index, str(error)) from error
        decoded: Image = segment.astype(self._stored_dtype, copy=False)
        return decoded

    def _require_no_bomb(self, content: bytes) -> None:
        """Raise a ValueError if a strip or tile is an image that declares more pixels than the strip has."""
        if self._page.compression in JPEG or self._page.compression > 30000:
            inside = headers.parse_header(io.BytesIO(content))
            if inside is not None and inside.pixels > math.prod(self._segment):
                raise ValueError(f"{inside.width}×{inside.height} px inside {self._segment} px")

    def _not_decoded(self, index: int, why: str) -> Exception:
        compression = getattr(self._page.compression, "name", str(self._page.compression))
        if "imagecodecs" in why:
            task = f"decode {self.path} ({compression} compression)"
            return MissingExtraError(task, package="imagecodecs", extra="tiff")
        return InputError(
            f"cannot read the image {self.path}",
            got=f"a damaged strip or tile, number {index} ({compression} compression)",
            why=why,
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"cannot read the image {path}", got="not a TIFF, or damaged", why=str(error) or type(error).__name__
    )


def _require_tags(path: Path, page: Any) -> None:
    """Raise a ValueError if a tag that decides how pixels are read is in the file but could not be read."""
    with path.open("rb") as file:
        stored = tiff_tags.read_tags(file)
    damaged = sorted(tag for tag in tiff_tags.LAYOUT & stored.fields.keys() if tag not in page.tags)
    if damaged or stored.repeated & tiff_tags.LAYOUT:
        raise ValueError(f"tags that are damaged or repeated: {damaged or sorted(stored.repeated)}")


def _require_kind(path: Path, page: Any) -> None:
    """Raise an InputError that names the layout, if pixels of this kind are not supported."""
    bits, dtype = page.bitspersample, page.dtype
    is_unsigned = dtype is not None and np.dtype(dtype).kind in "ub"
    if bits not in (8, 16, *SMALL_DEPTHS) or not is_unsigned:
        got = f"{dtype or 'unknown'} samples of {bits} bits"
        raise _unsupported(path, got, "8 or 16 bits", "convert it to 8 or 16 bits")
    photometric, samples = page.photometric, int(page.samplesperpixel)
    known = photometric in COLOURS and (photometric != YCBCR or page.compression in JPEG)
    if not known or not COLOURS[photometric] <= samples <= MOST_SAMPLES or page.imagedepth != 1:
        name = getattr(photometric, "name", str(photometric))
        got = f"{name} colours with {samples} samples"
        raise _unsupported(path, got, "gray, RGB, CMYK or a palette", "convert it to gray or RGB")
    if not page.imagelength or not page.imagewidth:
        raise _unsupported(path, "no pixels", "an image", "check the file")


def _unsupported(path: Path, got: str, expected: str, fix: str) -> InputError:
    return InputError(f"cannot use the image {path}", got=got, expected=expected, fix=fix)


def _palette(page: Any) -> Image:
    """Return the colours, uint8 levels, 3."""
    table = np.asarray(page.colormap).T
    if table.shape != (2**page.bitspersample, 3):
        raise ValueError(f"a palette of shape {table.shape} for {page.bitspersample} bits")
    # Programs store levels of 8 bits as they are, times 256, or times 257.
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)


def _rgb_of_cmyk(inks: Image) -> Image:
    """Return (max − ink)·(max − black) / max, rounded; colour management is the caller's concern."""
    largest = int(np.iinfo(inks.dtype).max)
    light = (largest - inks).astype(np.uint32)
    rgb: Image = ((light[..., :3] * light[..., 3:] + largest // 2) // largest).astype(inks.dtype)
    return rgb


def _two(parts: Sequence[Any]) -> tuple[Any, Any]:
    return (*parts, slice(None))[:2]


def _span(part: slice, side: int) -> tuple[int, int]:
    start, stop, step = part.indices(side)
    if step != 1:
        raise IndexError("a TIFF file is read by slices with step 1")
    return start, max(start, stop)


def _paste(segment: Image, y: int, x: int, found: Image) -> None:
    """Copy a segment, whose corner is at y, x of ``found``, cut to it."""
    bottom, right = min(y + len(segment), len(found)), min(x + segment.shape[1], found.shape[1])
    top, left = max(y, 0), max(x, 0)
    found[top:bottom, left:right] = segment[top - y : bottom - y, left - x : right - x]
