"""Read and change the first directory of a TIFF file, or of an EXIF block, which has the same layout.

Source: TIFF, revision 6.0 (Adobe, 1992), section 2; BigTIFF (Joris Van Damme and others, 2007).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dim.arrays import Image

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES_PER_PIXEL, STRIP_BYTES = 273, 274, 277, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT = 282, 283, 284, 296
EXTRA_SAMPLES, SAMPLE_FORMAT, ICC_PROFILE = 338, 339, 34675
LAYOUT = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339}
)
"""Tags that decide where pixels lie and how they are decoded."""
ASSOCIATED_ALPHA, STRAIGHT_ALPHA = 1, 2
"""Values of ExtraSamples."""

FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
"""Orientation -> steps along the stored rows and columns; from 5 on the two change places afterwards."""

SIGNATURES = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
"""First four bytes -> byte order, and whether offsets take 64 bits."""
BYTES_OF = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Size of one value of each field type."""
NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Field types that hold whole numbers."""
SHORT, RATIONAL, UNDEFINED = 3, 5, 7
DAMAGED = (struct.error, KeyError, OverflowError, ValueError)
"""Exceptions that the functions of this module raise for a damaged file, or for another one."""
LARGEST_COUNT = 1 << 16
"""Values of one field that are read as numbers: more than strips of any ordinary image."""
LARGEST_RAW = 64 << 20
"""Bytes of one field that are read: ICC profiles take kilobytes, at most a few megabytes."""
ENTRY = 12
"""Bytes of an entry of the classic format."""


class Field(NamedTuple):
    """One entry: where its values lie in the file.

    Attributes:
        kind: field type.
        length: bytes of all values.
        position: file offset of the first value.
    """

    kind: int
    length: int
    position: int


class Tags(NamedTuple):
    """The first directory.

    Attributes:
        order: byte order as ``struct`` writes it.
        fields: first field of each tag.
        repeated: tags that occur more than once; decoders differ in which field they take.
    """

    order: str
    fields: dict[int, Field]
    repeated: frozenset[int]


def upright(stored: Image, orientation: int) -> Image:
    """Return stored pixels, rows, columns, samples, as an orientation of TIFF or EXIF turns them."""
    if orientation == 1:
        return stored
    down, across = FLIPS[orientation]
    flipped = stored[::down, ::across]
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if orientation >= 5 else flipped)


def is_tiff(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a TIFF or BigTIFF."""
    return start[:4] in SIGNATURES


def read_tags(file: BinaryIO) -> Tags:
    """Return the first directory of an open TIFF file.

    Raises:
        DAMAGED: another file, or a damaged one.
    """
    file.seek(0)
    order, big = SIGNATURES[file.read(4)]
    if big:
        file.seek(8)
    file.seek(_unpack(file, order + ("Q" if big else "I"))[0])
    (count,) = _unpack(file, order + ("Q" if big else "H"))
    fields: dict[int, Field] = {}
    repeated = set()
    for _ in range(count):
        tag, field = _field(file, order, big)
        if tag in fields:
            repeated.add(tag)
        fields.setdefault(tag, field)
    return Tags(order, fields, frozenset(repeated))


def _field(file: BinaryIO, order: str, big: bool) -> tuple[int, Field]:
    tag, kind, count = _unpack(file, order + ("HHQ" if big else "HHI"))
    position, inline = file.tell(), 8 if big else 4
    (offset,) = _unpack(file, order + ("Q" if big else "I"))
    # Fields of unknown types are allowed and skipped by readers.
    length = BYTES_OF.get(kind, 1) * count
    return tag, Field(kind, length, position if length <= inline else offset)


def first_number(file: BinaryIO, tags: Tags, tag: int, default: int | None = None) -> int:
    """Return the first value of a field of whole numbers; the default, or KeyError, without such a field."""
    if default is not None and tag not in tags.fields:
        return default
    field = tags.fields[tag]
    file.seek(field.position)
    return int(_unpack(file, tags.order + NUMBERS[field.kind])[0])


def numbers(file: BinaryIO, tags: Tags, tag: int) -> tuple[int, ...]:
    """Return all values of a field of whole numbers; KeyError without it, OverflowError for too many."""
    field = tags.fields[tag]
    form = NUMBERS[field.kind]
    count = field.length // BYTES_OF[field.kind]
    if count > LARGEST_COUNT:
        raise OverflowError(f"{count} values")
    file.seek(field.position)
    return _unpack(file, f"{tags.order}{count}{form}")


def first_rational(file: BinaryIO, tags: Tags, tag: int) -> float:
    """Return the first value of a RATIONAL field; 0 for a zero denominator; KeyError without the field."""
    field = tags.fields[tag]
    if field.kind != RATIONAL:
        raise KeyError(tag)
    file.seek(field.position)
    above, below = _unpack(file, tags.order + "II")
    return float(above / below) if below else 0.0


def raw_bytes(file: BinaryIO, tags: Tags, tag: int) -> bytes | None:
    """Return all values of a field as they are stored; None without the field."""
    field = tags.fields.get(tag)
    if field is None:
        return None
    file.seek(field.position)
    return file.read(min(field.length, LARGEST_RAW))


def with_tags(encoded: bytes, added: Mapping[int, tuple[int, bytes]]) -> bytes:
    """Return a classic TIFF of one image with more fields; fields of the same tags are replaced.

    Args:
        encoded: the file.
        added: tag -> field type and values as they are stored in this file's byte order.
    """
    order, _ = SIGNATURES[encoded[:4]]
    (start,) = struct.unpack_from(order + "I", encoded, 4)
    (count,) = struct.unpack_from(order + "H", encoded, start)
    stored = (encoded[start + 2 + ENTRY * i : start + 2 + ENTRY * (i + 1)] for i in range(count))
    entries = [entry for entry in stored if struct.unpack_from(order + "H", entry)[0] not in added]
    # Offsets are from the start of the file and even: values go behind what is there, the directory last.
    tail = b"\0" * (len(encoded) % 2)
    for tag, (kind, values) in added.items():
        entry, values = _entry(order, tag, kind, values, len(encoded) + len(tail))
        entries.append(entry)
        tail += values
    entries.sort(key=lambda entry: int(struct.unpack_from(order + "H", entry)[0]))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    header = encoded[:4] + struct.pack(order + "I", len(encoded) + len(tail))
    return b"".join([header, encoded[8:], tail, directory])


def _entry(order: str, tag: int, kind: int, values: bytes, position: int) -> tuple[bytes, bytes]:
    """Return an entry, and the bytes that must be stored at ``position`` for it."""
    head = struct.pack(order + "HHI", tag, kind, len(values) // BYTES_OF[kind])
    if len(values) <= 4:
        return head + values.ljust(4, b"\0"), b""
    return head + struct.pack(order + "I", position), values + b"\0" * (len(values) % 2)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
