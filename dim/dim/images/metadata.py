"""ICC profile, resolution and gamma of an image file, which outputs keep.

OpenCV finds the ICC profiles and EXIF blocks of PNG, JPEG and WebP, and stores profiles in PNG and WebP. Its
JPEG encoder refuses profiles of more than one segment, so these are written here. TIFF keeps all in tags.

Sources: PNG specification (W3C, third edition), pHYs and gAMA; JFIF 1.02, APP0; TIFF 6.0, tags 282, 283, 296
and 34675; Exif 3.0, tag 274; ICC.1:2022, section 7.2 and annex B.4.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from dim.arrays import UInt8
from dim.images import headers, tiff_tags

PNG_HEADER_END = 8 + 25
"""Bytes of the signature and of the IHDR chunk, behind which other chunks may stand."""
INCH, CENTIMETRE = 0.0254, 0.01
"""Metres."""
EXIF_PREFIX = b"Exif\0\0"
"""Start of JPEG's EXIF segment; some programs also write it into WebP and PNG."""
TIFF_UNITS = {2: INCH, 3: CENTIMETRE}
JFIF_UNITS = {1: INCH, 2: CENTIMETRE}
JFIF_DENSITY = 13
"""Offset of unit and densities in a JPEG file that starts with a JFIF segment."""
ICC_MARK = b"ICC_PROFILE\0"
JPEG_PART = 65535 - 2 - len(ICC_MARK) - 2
"""Bytes of a profile that one APP2 segment holds."""
SMALLEST_PROFILE = 128
"""Bytes of an ICC profile's header."""


class Metadata(NamedTuple):
    """Properties of an image file that outputs keep.

    Attributes:
        profile: ICC profile of the colours.
        density: pixels per metre, across and down.
        gamma: PNG's gAMA, 100 000 times the exponent.
    """

    profile: bytes | None = None
    density: tuple[float, float] | None = None
    gamma: int | None = None


class Found(NamedTuple):
    """Metadata, and the EXIF orientation of the stored pixels, 1 to 8."""

    metadata: Metadata
    orientation: int


def holds_rgb(profile: bytes) -> bool:
    """Return whether the profile describes RGB, as opposed to gray or CMYK (ICC.1, bytes 16 to 19)."""
    return profile[16:20] == b"RGB "


def of_decoded(path: Path, kinds: Sequence[int], blocks: Sequence[Any]) -> Found:
    """Return the metadata of a file that OpenCV decoded.

    Args:
        path: the file.
        kinds, blocks: types and contents of the metadata that ``cv2.imdecodeWithMetadata`` returned.
    """
    found = {kind: np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True)}
    profile = found.get(cv2.IMAGE_METADATA_ICCP)
    exif = found.get(cv2.IMAGE_METADATA_EXIF, b"").removeprefix(EXIF_PREFIX)
    tags = _ExifBlock(exif)
    density, gamma = _stored(path)
    turn = tags.orientation()
    return Found(Metadata(_checked(profile), _turned(density or tags.density(), turn), gamma), turn)


def of_tiff(path: Path) -> Metadata:
    """Return the metadata of a TIFF file, from its first directory; none where it is damaged."""
    try:
        with path.open("rb") as file:
            tags = tiff_tags.read_tags(file)
            profile = tiff_tags.raw_bytes(file, tags, tiff_tags.ICC_PROFILE)
            return Metadata(_checked(profile), _turned(_density(file, tags), _orientation(file, tags)))
    except (OSError, *tiff_tags.DAMAGED):
        return Metadata()


def embed(encoded: bytes, metadata: Metadata) -> bytes:
    """Return an encoded file with metadata, as far as its format has a place for them.

    The profile of a PNG or WebP file is not stored here, but by :func:`encode_with_profile`.
    """
    if encoded[:8] == headers.PNG_SIGNATURE:
        return encoded[:PNG_HEADER_END] + _png_chunks(metadata) + encoded[PNG_HEADER_END:]
    if encoded[6:11] == b"JFIF\0":
        return _into_jpeg(encoded, metadata)
    if tiff_tags.is_tiff(encoded):
        return tiff_tags.with_tags(encoded, _tiff_fields(encoded, metadata))
    return encoded


def encode_with_profile(suffix: str, image: Any, profile: bytes, options: list[int]) -> bytes | None:
    """Return an encoded PNG or WebP with an ICC profile; None if the encoder refuses the profile."""
    block: UInt8 = np.frombuffer(profile, np.uint8)
    try:
        done, encoded = cv2.imencodeWithMetadata(suffix, image, [cv2.IMAGE_METADATA_ICCP], [block], options)
    except cv2.error:
        return None
    return encoded.tobytes() if done else None


class _ExifBlock:
    """An EXIF block, which is a small TIFF; a damaged one is taken as absent."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self._tags: tiff_tags.Tags | None = None
        if tiff_tags.is_tiff(content):
            try:
                self._tags = tiff_tags.read_tags(self._file)
            except tiff_tags.DAMAGED:
                self._tags = None

    def orientation(self) -> int:
        return 1 if self._tags is None else _orientation(self._file, self._tags)

    def density(self) -> tuple[float, float] | None:
        return None if self._tags is None else _density(self._file, self._tags)


def _checked(profile: bytes | None) -> bytes | None:
    return profile if profile is not None and len(profile) >= SMALLEST_PROFILE else None


def _orientation(file: BinaryIO, tags: tiff_tags.Tags) -> int:
    """Return the orientation, 1 to 8; 1 where it is damaged."""
    try:
        found = tiff_tags.first_number(file, tags, tiff_tags.ORIENTATION, 1)
    except tiff_tags.DAMAGED:
        return 1
    return found if found in tiff_tags.FLIPS else 1


def _density(file: BinaryIO, tags: tiff_tags.Tags) -> tuple[float, float] | None:
    """Return pixels per metre; None without resolution or unit, or where they are damaged."""
    sides = (tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION)
    try:
        unit = TIFF_UNITS.get(tiff_tags.first_number(file, tags, tiff_tags.RESOLUTION_UNIT, 2))
        if unit is None or not all(tag in tags.fields for tag in sides):
            return None
        across, down = (tiff_tags.first_rational(file, tags, tag) / unit for tag in sides)
    except tiff_tags.DAMAGED:
        return None
    return (across, down) if across > 0 and down > 0 else None


def _turned(density: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Return the density across and down the upright image; orientations from 5 on exchange its sides."""
    return density if density is None or orientation < 5 else (density[1], density[0])


def _stored(path: Path) -> tuple[tuple[float, float] | None, int | None]:
    """Return density and gamma of PNG's chunks, or the density of JPEG's JFIF segment."""
    density, gamma = None, None
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == headers.PNG_SIGNATURE:
                chunks = {name: at for name, at, length in headers.png_chunks(file) if length in (4, 9)}
                density, gamma = _png_density(file, chunks), _png_gamma(file, chunks)
            elif start[:2] == headers.JPEG_START:
                density = _jfif_density(file)
    except (OSError, *tiff_tags.DAMAGED):
        return None, None
    return density, gamma


def _png_density(file: BinaryIO, chunks: dict[bytes, int]) -> tuple[float, float] | None:
    if b"pHYs" not in chunks:
        return None
    file.seek(chunks[b"pHYs"])
    across, down, unit = struct.unpack(">IIB", file.read(9))
    return (float(across), float(down)) if unit == 1 and across and down else None


def _png_gamma(file: BinaryIO, chunks: dict[bytes, int]) -> int | None:
    if b"gAMA" not in chunks:
        return None
    file.seek(chunks[b"gAMA"])
    return int(struct.unpack(">I", file.read(4))[0])


def _jfif_density(file: BinaryIO) -> tuple[float, float] | None:
    for marker, at, length in headers.jpeg_segments(file):
        if marker == 0xE0 and length >= 14:
            file.seek(at)
            name, unit, across, down = struct.unpack(">5s2xBHH", file.read(12))
            if name == b"JFIF\0" and unit in JFIF_UNITS and across and down:
                return across / JFIF_UNITS[unit], down / JFIF_UNITS[unit]
    return None


def _into_jpeg(encoded: bytes, metadata: Metadata) -> bytes:
    """Return a JPEG file that starts with a JFIF segment, with density and the segments of a profile."""
    head, end = encoded[:JFIF_DENSITY], 4 + int.from_bytes(encoded[4:6], "big")
    density = encoded[JFIF_DENSITY : JFIF_DENSITY + 5]
    # Whole dots per inch; 0 is not allowed.
    dots = [min(round(side * INCH), 65535) for side in _usable(metadata.density) or (0.0, 0.0)]
    if min(dots) > 0:
        across, down = dots
        density = struct.pack(">BHH", 1, across, down)
    rest = encoded[JFIF_DENSITY + 5 : end] + _profile_segments(metadata.profile or b"") + encoded[end:]
    return head + density + rest


def _usable(density: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a density that files can state; None for none, and for numbers that are not positive."""
    return density if density is not None and all(0 < side < math.inf for side in density) else None


def fits_jpeg(profile: bytes) -> bool:
    """Return whether the numbered segments of a JPEG can hold a profile: 255 of them."""
    return len(profile) <= 255 * JPEG_PART


def _profile_segments(profile: bytes) -> bytes:
    if not fits_jpeg(profile):
        return b""
    parts = [profile[at : at + JPEG_PART] for at in range(0, len(profile), JPEG_PART)]
    segments = b""
    for number, part in enumerate(parts, start=1):
        content = ICC_MARK + bytes([number, len(parts)]) + part
        segments += b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content
    return segments


def _png_chunks(metadata: Metadata) -> bytes:
    chunks = b""
    if metadata.gamma is not None:
        chunks += _png_chunk(b"gAMA", struct.pack(">I", metadata.gamma))
    sides = _usable(metadata.density)
    if sides is not None:
        across, down = (min(round(side), 2**31 - 1) for side in sides)
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    return chunks


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _tiff_fields(encoded: bytes, metadata: Metadata) -> dict[int, tuple[int, bytes]]:
    order, _ = tiff_tags.SIGNATURES[encoded[:4]]
    fields: dict[int, tuple[int, bytes]] = {}
    if metadata.profile is not None:
        fields[tiff_tags.ICC_PROFILE] = (tiff_tags.UNDEFINED, metadata.profile)
    sides = _usable(metadata.density)
    if sides is not None:
        for tag, side in zip((tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION), sides, strict=True):
            dots = min(round(side * INCH * 1000), 2**32 - 1)
            fields[tag] = (tiff_tags.RATIONAL, struct.pack(order + "II", dots, 1000))
        fields[tiff_tags.RESOLUTION_UNIT] = (tiff_tags.SHORT, struct.pack(order + "H", 2))
    return fields
