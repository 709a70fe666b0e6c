"""Image files that declare far more pixels than they hold, one maker for each format.

Each maker takes the side of a square, in pixels, and returns the bytes of a file.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache

import cv2

from fuzz import seeds

PACKED_BYTES = 40 * 10**6
"""Bytes of the pixels in a bomb, before they are packed."""


@cache
def png(side: int) -> bytes:
    """Return a gray PNG whose first rows are all there, a thousandth of their size."""
    packed = zlib.compress(bytes((side + 1) * (PACKED_BYTES // side)), 9)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


@cache
def tiff(side: int) -> bytes:
    """Return a TIFF with one deflated strip that grows a thousandfold."""
    packed = zlib.compress(bytes(min(side * side, PACKED_BYTES)), 9)
    entries = (
        (256, 4, side),
        (257, 4, side),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (273, 4, 150),
        (277, 3, 1),
        (278, 4, side),
        (279, 4, len(packed)),
    )
    table = struct.pack("<H", len(entries))
    table += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0\x08\0\0\0" + table + struct.pack("<I", 0)
    return head.ljust(150, b"\0") + packed


def jpeg(side: int) -> bytes:
    """Return a JPEG whose header declares a larger picture than its scan holds."""
    content = bytearray(cv2.imencode(".jpg", seeds.colours())[1])
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def webp(side: int) -> bytes:
    """Return a WebP (VP8X) that declares a large canvas."""
    size = min(side, 1 << 24) - 1
    canvas = struct.pack("<I", 0) + size.to_bytes(3, "little") * 2
    body = b"VP8X" + struct.pack("<I", len(canvas)) + canvas
    plain = bytes(cv2.imencode(".webp", seeds.colours())[1])
    return b"RIFF" + struct.pack("<I", 4 + len(body) + len(plain) - 12) + b"WEBP" + body + plain[12:]


def bmp(side: int) -> bytes:
    """Return a run-length BMP of a few bytes."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 4, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1082, 0, 0, 1078) + head + bytes(1024) + b"\0\1\0\1"


def gif(side: int) -> bytes:
    """Return a GIF that declares a large screen."""
    content = bytearray(cv2.imencode(".gif", seeds.colours())[1])
    content[6:10] = struct.pack("<HH", min(side, 65_535), min(side, 65_535))
    return bytes(content)


def avif(side: int) -> bytes:
    """Return an AVIF whose image box declares a large picture."""
    content = bytearray(cv2.imencode(".avif", seeds.colours())[1])
    at = content.index(b"ispe") + 8
    content[at : at + 8] = struct.pack(">II", side, side)
    return bytes(content)


BOMBS = (png, tiff, jpeg, webp, bmp, gif, avif)
