"""ICC profiles: read from an image file, put into an encoded one. The profile itself is not interpreted.

Sources: PNG specification, section 11.3.2.3 (iCCP); ICC.1:2022, section 7.2.8 and annex B.4 (JPEG);
RIFF container of WebP (VP8X, ICCP); TIFF tag 34675.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dim.images import tiff_tags

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_END = 8 + 25
"""Signature and the IHDR chunk, after which a profile may stand."""
ICC_MARK = b"ICC_PROFILE\0"
JPEG_PART = 65535 - 2 - len(ICC_MARK) - 2
"""Bytes of a profile that one APP2 segment holds."""
LARGEST = 64 << 20
"""Profiles take kilobytes, at most a few megabytes: a compressed one that is larger is not unpacked."""
VP8X_HAS_PROFILE, VP8X_HAS_ALPHA = 0x20, 0x10


def read_profile(path: Path) -> bytes | None:
    """The ICC profile of a PNG, JPEG, TIFF or WebP file; None without one, or where it is damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            profile = _read(file, start)
    except (OSError, struct.error, KeyError, zlib.error):
        return None
    return profile if profile and len(profile) >= 128 else None


def _read(file: BinaryIO, start: bytes) -> bytes | None:
    if start[:8] == PNG_SIGNATURE:
        return _from_png(file)
    if start[:2] == b"\xff\xd8":
        return _from_jpeg(file)
    if tiff_tags.is_tiff(start):
        return tiff_tags.raw_bytes(file, tiff_tags.read_tags(file), tiff_tags.ICC_PROFILE)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return next((content for name, content in _riff_chunks(file, b"ICCP") if name == b"ICCP"), None)
    return None


def holds_rgb(profile: bytes) -> bool:
    """Whether the profile describes RGB, as opposed to gray or CMYK (ICC.1, bytes 16 to 19)."""
    return profile[16:20] == b"RGB "


def embed(encoded: bytes, profile: bytes) -> bytes:
    """An encoded PNG, JPEG, WebP or classic TIFF with this profile; the file has none yet."""
    if encoded[:8] == PNG_SIGNATURE:
        return encoded[:PNG_HEADER_END] + _png_chunk(profile) + encoded[PNG_HEADER_END:]
    if encoded[:2] == b"\xff\xd8":
        return _into_jpeg(encoded, profile)
    if encoded[:4] == b"RIFF":
        return _into_webp(encoded, profile)
    return tiff_tags.with_tags(encoded, {tiff_tags.ICC_PROFILE: (tiff_tags.UNDEFINED, profile)})


def _from_png(file: BinaryIO) -> bytes | None:
    file.seek(8)
    while True:
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"iCCP":
            # A name, a zero, the method (0: deflate), the stream.
            packed = file.read(length).partition(b"\0")[2][1:]
            return zlib.decompressobj().decompress(packed, LARGEST)
        if name in (b"IDAT", b"IEND"):
            return None
        file.seek(length + 4, 1)


def _png_chunk(profile: bytes) -> bytes:
    content = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _from_jpeg(file: BinaryIO) -> bytes | None:
    """The parts in their own order: each starts with its number and how many there are."""
    parts: dict[int, bytes] = {}
    for marker, content in _jpeg_headers(file):
        if marker == 0xE2 and content.startswith(ICC_MARK):
            parts[content[len(ICC_MARK)]] = content[len(ICC_MARK) + 2 :]
    return b"".join(parts[number] for number in sorted(parts)) or None


def _jpeg_headers(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    file.seek(2)
    while True:
        mark, marker = struct.unpack(">BB", file.read(2))
        if mark != 0xFF or marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack(">H", file.read(2))
        yield marker, file.read(length - 2)


def _into_jpeg(encoded: bytes, profile: bytes) -> bytes:
    # JFIF wants its own segment first.
    at = 4 + int.from_bytes(encoded[4:6], "big") if encoded[2:4] == b"\xff\xe0" else 2
    return encoded[:at] + _jpeg_segments(profile) + encoded[at:]


def _jpeg_segments(profile: bytes) -> bytes:
    parts = [profile[at : at + JPEG_PART] for at in range(0, len(profile), JPEG_PART)]
    segments = []
    for number, part in enumerate(parts, start=1):
        content = ICC_MARK + bytes([number, len(parts)]) + part
        segments.append(b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content)
    return b"".join(segments)


def _riff_chunks(file: BinaryIO, wanted: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk; what is not wanted is skipped and comes without content."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        content = file.read(length) if name == wanted else b""
        file.seek(length - len(content) + length % 2, 1)
        yield name, content


def _into_webp(encoded: bytes, profile: bytes) -> bytes:
    """The simple format (one VP8 or VP8L chunk) as the extended one, which alone holds a profile."""
    name, (width, height), alpha = encoded[12:16], _webp_size(encoded), False
    if name == b"VP8L":
        alpha = bool(encoded[24] & 0x10)
    flags = VP8X_HAS_PROFILE | (VP8X_HAS_ALPHA if alpha else 0)
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + _riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    body += _riff_chunk(b"ICCP", profile) + encoded[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_size(encoded: bytes) -> tuple[int, int]:
    """Sides from the frame's own header: RFC 6386, section 9.1, or the lossless bitstream's first bits."""
    if encoded[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", encoded, 26)
    return width & 0x3FFF, height & 0x3FFF


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
