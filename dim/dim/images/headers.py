"""How many pixels an image file declares, without decoding it: a small file can hold a huge image."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from dim.images import tiff_tags

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
            if tiff_tags.is_tiff(start):
                return _tiff(file)
        except (struct.error, KeyError):
            return None
    return None


PNG_WITH_ALPHA = frozenset({3, 4, 6})
"""Colour types that have an alpha channel, or a palette that may have one."""


def may_have_alpha(path: Path) -> bool:
    """Whether the header allows an alpha channel; False for other or damaged files."""
    with path.open("rb") as file:
        start = file.read(26)
        if start[:8] == PNG_SIGNATURE:
            return start[25:26] != b"" and start[25] in PNG_WITH_ALPHA
        if not tiff_tags.is_tiff(start):
            return start[8:12] == b"WEBP"
        try:
            return tiff_tags.first_number(file, tiff_tags.read_tags(file), tiff_tags.SAMPLES_PER_PIXEL) in (
                2,
                4,
            )
        except (struct.error, KeyError):
            return False


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


def _tiff(file: BinaryIO) -> int:
    tags = tiff_tags.read_tags(file)
    width, height = (tiff_tags.first_number(file, tags, tag) for tag in (tiff_tags.WIDTH, tiff_tags.HEIGHT))
    return width * height


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
