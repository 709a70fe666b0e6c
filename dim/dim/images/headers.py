"""Sizes that an image file declares, and whether its parts lie within the file: checked before decoding.

A small file can declare a huge image, or a part that is larger than the file. Decoders allocate what is
declared before they notice.

Sources: PNG specification (W3C, third edition), section 5; ITU-T T.81, annex B (JPEG); TIFF revision 6.0;
RFC 9649 (WebP); BITMAPFILEHEADER and its successors (Microsoft); GIF89a; netpbm; ISO/IEC 15444-1 (JPEG 2000),
annex A; ISO/IEC 14496-12 (boxes of AVIF).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from dim.images import tiff_tags

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame; the three left out are tables."""
JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length: TEM and the restart markers."""
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
MOST_SEGMENTS = 1 << 16
"""Segments of a JPEG, or chunks of a WebP, that are read: writers use some hundreds."""
MOST_CHUNKS = 1 << 18
"""Chunks of a PNG that are read: libpng's 8 KiB each hold 2 GB of pixels."""
FILL_BLOCK = 1 << 20
"""Most bytes of a run of fill bytes that are looked at in one step."""
LARGEST_NETPBM_HEADER = 1 << 16
"""Bytes in which the header of a netpbm file must end, comments included."""
LARGEST_JPEG2000_HEADER = 1 << 16
"""Bytes in which the codestream of a JPEG 2000 file must start."""
AVIF_ORIENTATIONS = ((4, 2, 1), (5, 7, 8), (2, 4, 3), (7, 5, 6))
"""Orientation by quarter turns against the clock, then by the mirror: of rows, of columns, none."""
LARGEST_AVIF_HEADER = 1 << 20
"""Bytes in which the sizes of an AVIF file must be found."""


Parsed = TypeVar("Parsed")


class HeaderError(ValueError):
    """A header that is damaged, or that contradicts the file; the message states how."""


class Header(NamedTuple):
    """Size and kind that a file declares.

    Attributes:
        format: name of the format.
        width: pixels, before any EXIF orientation is applied.
        height: pixels.
        white: largest value of a sample if OpenCV leaves it below the largest of the pixels' type, else None.
        orientation: 1 to 8 as in EXIF, in formats that state it outside of EXIF; None in others.
    """

    format: str
    width: int
    height: int
    white: int | None = None
    orientation: int | None = None

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(path: Path) -> Header | None:
    """Return what a file declares; None for a format that is not known.

    Raises:
        HeaderError: a damaged header.
        OSError: a file that cannot be read.
    """
    with path.open("rb") as file:
        return parse_header(file)


def parse_header(file: BinaryIO) -> Header | None:
    """Return what an open file declares; None and HeaderError as in :func:`read_header`."""
    return _parsed(file, _read)


def declared_pixels(path: Path) -> int | None:
    """Return width times height as the header declares it; None if it is damaged, unknown or not readable."""
    try:
        header = read_header(path)
    except (HeaderError, OSError):
        return None
    return None if header is None else header.pixels


def require_whole(path: Path) -> None:
    """Raise a HeaderError if a part of a PNG, JPEG or WebP file declares more bytes than there are."""
    with path.open("rb") as file:
        _parsed(file, _walk)


def _parsed(file: BinaryIO, parse: Callable[[BinaryIO], Parsed]) -> Parsed:
    file.seek(0)
    try:
        return parse(file)
    except HeaderError:
        raise
    except tiff_tags.DAMAGED as error:
        raise HeaderError("its header is damaged or cut off") from error


def _read(file: BinaryIO) -> Header | None:
    start = file.read(12)
    if start[:8] == PNG_SIGNATURE:
        return _png(file)
    if start[:2] == JPEG_START:
        return _jpeg(file)
    if tiff_tags.is_tiff(start):
        return _tiff(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(file)
    if start[:2] == b"BM":
        return _bmp(file)
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return Header("GIF", *struct.unpack("<HH", start[6:10]))
    if re.match(rb"P[1-6]\s", start):
        return _netpbm(file)
    if start[:4] == b"\xff\x4f\xff\x51" or start[4:8] == b"jP  ":
        return _jpeg2000(file)
    if start[4:8] == b"ftyp" and _is_avif(file, start):
        return _avif(file)
    return None


def _walk(file: BinaryIO) -> None:
    start = file.read(12)
    if start[:8] == PNG_SIGNATURE:
        for name, _, _ in png_chunks(file):
            if name == b"IEND":
                return
        raise HeaderError("it is cut off: the last chunk is missing")
    if start[:2] == JPEG_START:
        for _ in jpeg_segments(file):
            pass
    elif start[:4] == b"RIFF":
        for _ in _riff_chunks(file):
            pass


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of the content of every chunk; HeaderError for one beyond the end."""
    position, size = 8, _size(file)
    for _ in range(MOST_CHUNKS):
        if position >= size:
            return
        file.seek(position)
        length, name = _unpack(file, ">I4s")
        _require_inside(f"the chunk {name.decode('latin-1')!r}", position + 12 + length, size)
        yield name, position + 8, length
        position += 12 + length
    raise HeaderError(f"it has more than {MOST_CHUNKS} chunks")


def jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield marker, position and length of the content of every segment before the first scan.

    Raises:
        HeaderError: no JPEG, too many segments, or one that ends beyond the file.
    """
    position, size = 2, _size(file)
    for _ in range(MOST_SEGMENTS):
        marker, position = _jpeg_marker(file, position)
        if marker in (JPEG_SCAN, JPEG_END):
            return
        if marker in JPEG_ALONE:
            continue
        (length,) = _unpack(file, ">H")
        if length < 2:
            raise HeaderError(f"a segment has {length} bytes")
        _require_inside(f"the segment {marker:#x}", position + length, size)
        yield marker, position + 2, length - 2
        position += length
    raise HeaderError(f"it has more than {MOST_SEGMENTS} segments")


def _jpeg_marker(file: BinaryIO, position: int) -> tuple[int, int]:
    """Return the marker at a position and the position after it, which is where the file is read next."""
    file.seek(position)
    mark, marker = _unpack(file, "BB")
    if mark != 0xFF:
        raise HeaderError(f"there is no marker at byte {position}")
    position += 2
    # A marker may be preceded by any number of fill bytes. Blocks that grow skip long runs in few steps, and
    # short runs without reading much.
    block = 64
    while marker == 0xFF:
        content = file.read(block)
        rest = content.lstrip(b"\xff")
        if rest:
            marker, position = rest[0], position + len(content) - len(rest) + 1
            file.seek(position)
        elif not content:
            raise HeaderError("it is cut off: the last marker is missing")
        else:
            position, block = position + len(content), min(2 * block, FILL_BLOCK)
    return marker, position


def _png(file: BinaryIO) -> Header:
    file.seek(8)
    length, name = _unpack(file, ">I4s")
    if (length, name) != (13, b"IHDR"):
        raise HeaderError("its first chunk is not IHDR")
    return Header("PNG", *_unpack(file, ">II"))


def _jpeg(file: BinaryIO) -> Header:
    for marker, position, _ in jpeg_segments(file):
        if marker in JPEG_FRAMES:
            file.seek(position)
            height, width = _unpack(file, ">xHH")
            return Header("JPEG", width, height)
    raise HeaderError("it has no frame")


def _tiff(file: BinaryIO) -> Header:
    tags = tiff_tags.read_tags(file)
    repeated = tags.repeated & {tiff_tags.WIDTH, tiff_tags.HEIGHT}
    if repeated:
        raise HeaderError("its size is declared twice")
    width, height = (tiff_tags.first_number(file, tags, tag) for tag in (tiff_tags.WIDTH, tiff_tags.HEIGHT))
    return Header("TIFF", width, height)


def _riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of the content of every chunk of a WebP file."""
    position, size = 12, _size(file)
    for _ in range(MOST_SEGMENTS):
        if position + 8 > size:
            return
        file.seek(position)
        name, length = _unpack(file, "<4sI")
        _require_inside(f"the chunk {name.decode('latin-1')!r}", position + 8 + length, size)
        yield name, position + 8, length
        position += 8 + length + length % 2
    raise HeaderError(f"it has more than {MOST_SEGMENTS} chunks")


def _webp(file: BinaryIO) -> Header:
    """Return the largest size of the canvas and of the frames."""
    sizes = [(0, 0)]
    for name, position, _ in _riff_chunks(file):
        file.seek(position)
        if name == b"VP8X":
            canvas = _unpack(file, "<4x3s3s")
            sizes.append((_uint24(canvas[0]) + 1, _uint24(canvas[1]) + 1))
        elif name == b"VP8 ":
            width, height = _unpack(file, "<6xHH")
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        elif name == b"VP8L":
            (bits,) = _unpack(file, "<xI")
            sizes.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    return Header("WebP", max(width for width, _ in sizes), max(height for _, height in sizes))


def _uint24(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _bmp(file: BinaryIO) -> Header:
    file.seek(14)
    (length,) = _unpack(file, "<I")
    width, height = _unpack(file, "<HH" if length == 12 else "<ii")
    # A negative height means that the top row comes first.
    return Header("BMP", abs(width), abs(height))


def _netpbm(file: BinaryIO) -> Header:
    file.seek(0)
    start = file.read(LARGEST_NETPBM_HEADER)
    # Numbers are separated by whitespace and comments; files of the kinds 1 and 4 have no largest value.
    kind, between = start[1:2], rb"(?:\s|#[^\r\n]*[\r\n])+"
    parts = [rb"P[1-6]", rb"0*(\d{1,9})", rb"0*(\d{1,9})", *([] if kind in b"14" else [rb"0*(\d{1,9})"])]
    found = re.match(between.join(parts) + rb"(?=[\s#])", start)
    if found is None:
        raise HeaderError(
            "its header has no size" if kind in b"14" else "its header has no size and largest value"
        )
    if start[found.end() : found.end() + 1] == b"#":
        # OpenCV would take it for pixels.
        raise HeaderError("a comment follows the last number of its header without whitespace")
    width, height, white = (int(number) for number in (*found.groups(), b"255")[:3])
    if not 0 < white < 1 << 16:
        raise HeaderError(f"its largest value is {white}")
    # OpenCV stretches the samples of files 2 and 3, which are text, if they have 8 bits.
    stretched = white in (255, 65535) or (white < 255 and kind in b"23")
    return Header("netpbm", width, height, None if stretched else white)


def _jpeg2000(file: BinaryIO) -> Header:
    """Return the size of the reference grid and the depth, from the SIZ segment of the codestream."""
    file.seek(0)
    content = file.read(LARGEST_JPEG2000_HEADER)
    start = content.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise HeaderError("it has no codestream")
    right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
    # The highest bit states whether samples are signed.
    (depth,) = struct.unpack_from("B", content, start + 42)
    bits = (depth & 0x7F) + 1
    return Header("JPEG 2000", right - left, bottom - top, 2**bits - 1 if 8 < bits < 16 else None)


def _is_avif(file: BinaryIO, start: bytes) -> bool:
    """Return whether a file of boxes is AVIF; the brand mif1 alone is HEIF as well."""
    brands = {start[8:12]}
    if brands <= {b"mif1", b"msf1"}:
        file.seek(16)
        content = file.read(min(max(int.from_bytes(start[:4], "big") - 16, 0), 256))
        brands = {content[at : at + 4] for at in range(0, len(content), 4)}
    return not brands.isdisjoint({b"avif", b"avis"})


def _avif(file: BinaryIO) -> Header:
    """Return the largest size that an image of the file declares in a box 'ispe', and the depth in 'av1C'."""
    file.seek(0)
    content = file.read(LARGEST_AVIF_HEADER)
    places = [match.end() + 4 for match in re.finditer(b"ispe", content)]
    sizes = [struct.unpack_from(">II", content, place) for place in places]
    if not sizes:
        raise HeaderError("it declares no size")
    white = None
    configuration = content.find(b"av1C")
    if configuration >= 0:
        # In the third byte the bits 0x40 and 0x20 are high_bitdepth and twelve_bit.
        (flags,) = struct.unpack_from("B", content, configuration + 6)
        if flags & 0x40:
            white = 2 ** (12 if flags & 0x20 else 10) - 1
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    return Header("AVIF", width, height, white, _avif_orientation(content))


def _avif_orientation(content: bytes) -> int | None:
    """Return the orientation of the boxes 'irot' and 'imir', which OpenCV ignores; None without them."""
    # Boxes of properties lie in 'meta'; what follows 'mdat' are pixels.
    properties = content[max(content.find(b"meta"), 0) :].partition(b"mdat")[0]
    turn, mirror = properties.find(b"irot"), properties.find(b"imir")
    if turn < 0 and mirror < 0:
        return None
    (quarters,) = struct.unpack_from("B", properties, turn + 4) if turn >= 0 else (0,)
    (axis,) = struct.unpack_from("B", properties, mirror + 4) if mirror >= 0 else (2,)
    return AVIF_ORIENTATIONS[quarters & 3][axis if axis == 2 else axis & 1]


def _require_inside(part: str, end: int, size: int) -> None:
    if end > size:
        raise HeaderError(f"{part} ends at byte {end}, the file at byte {size}")


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
