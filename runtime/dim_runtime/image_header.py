"""How many pixels an image file declares, without decoding it: a small file can hold a huge image."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_FORMATS = {3: "H", 4: "I"}
"""Types of a TIFF entry that hold a side: 16 and 32 bits."""
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame; the three left out are tables."""


def declared_pixels(path: Path) -> int | None:
    """Width times height as the header of a PNG, JPEG or TIFF says; None for other or damaged files."""
    with path.open("rb") as file:
        start = file.read(8)
        try:
            if start == PNG_SIGNATURE:
                return _png(file)
            if start[:2] == b"\xff\xd8":
                return _jpeg(file)
            if start[:4] in (b"II*\0", b"MM\0*"):
                return _tiff(file, "<" if start[:2] == b"II" else ">")
        except (struct.error, KeyError):
            return None
    return None


def _png(file: BinaryIO) -> int:
    width, height = _unpack(file, ">8xII")
    return int(width * height)


def _jpeg(file: BinaryIO) -> int:
    file.seek(2)
    while True:
        mark, kind, length = _unpack(file, ">BBH")
        if mark != 0xFF:
            raise struct.error("no marker")
        if kind in JPEG_FRAMES:
            height, width = _unpack(file, ">xHH")
            return int(height * width)
        file.seek(length - 2, 1)


def _tiff(file: BinaryIO, order: str) -> int:
    file.seek(4)
    file.seek(_unpack(file, order + "I")[0])
    sides: dict[int, int] = {}
    for _ in range(_unpack(file, order + "H")[0]):
        tag, kind, _, value = _unpack(file, order + "HHI4s")
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            form = order + TIFF_FORMATS[kind]
            (sides[tag],) = struct.unpack(form, value[: struct.calcsize(form)])
    return sides[TIFF_WIDTH] * sides[TIFF_HEIGHT]


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
