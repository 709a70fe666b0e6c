"""The first directory of a TIFF file: what an image declares, read and changed without a library.

Source: TIFF, revision 6.0 (Adobe, 1992), section 2; BigTIFF (Joris Van Damme and others, 2007).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

WIDTH, HEIGHT, SAMPLES_PER_PIXEL, EXTRA_SAMPLES, ICC_PROFILE = 256, 257, 277, 338, 34675

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
NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Field types that hold unsigned whole numbers."""
SHORT, UNDEFINED = 3, 7
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
    """The first directory: byte order as ``struct`` writes it, and fields by tag."""

    order: str
    fields: dict[int, Field]


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts like this is a TIFF or BigTIFF."""
    return start[:4] in SIGNATURES


def read_tags(file: BinaryIO) -> Tags:
    """The first directory of an open TIFF file; struct.error or KeyError for another or a damaged file."""
    file.seek(0)
    order, big = SIGNATURES[file.read(4)]
    if big:
        file.seek(8)
    file.seek(_unpack(file, order + ("Q" if big else "I"))[0])
    (count,) = _unpack(file, order + ("Q" if big else "H"))
    return Tags(order, dict(_field(file, order, big) for _ in range(count)))


def _field(file: BinaryIO, order: str, big: bool) -> tuple[int, Field]:
    tag, kind, count = _unpack(file, order + ("HHQ" if big else "HHI"))
    position, inline = file.tell(), 8 if big else 4
    (offset,) = _unpack(file, order + ("Q" if big else "I"))
    length = BYTES_OF[kind] * count
    return tag, Field(kind, length, position if length <= inline else offset)


def first_number(file: BinaryIO, tags: Tags, tag: int) -> int:
    """The first value of a field of whole numbers; KeyError without such a field."""
    field = tags.fields[tag]
    file.seek(field.position)
    return int(_unpack(file, tags.order + NUMBERS[field.kind])[0])


def raw_bytes(file: BinaryIO, tags: Tags, tag: int) -> bytes | None:
    """All values of a field as they are stored; None without the field."""
    field = tags.fields.get(tag)
    if field is None:
        return None
    file.seek(field.position)
    return file.read(field.length)


def with_tags(encoded: bytes, added: Mapping[int, tuple[int, bytes]]) -> bytes:
    """A classic TIFF of one image with more fields.

    Args:
        encoded: the file; its directory has none of the new tags.
        added: tag -> field type and values as they are stored in this file's byte order.
    """
    order, _ = SIGNATURES[encoded[:4]]
    (start,) = struct.unpack_from(order + "I", encoded, 4)
    (count,) = struct.unpack_from(order + "H", encoded, start)
    entries = [encoded[start + 2 + ENTRY * i : start + 2 + ENTRY * (i + 1)] for i in range(count)]
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
    """An entry, and what has to be stored at ``position`` for it."""
    head = struct.pack(order + "HHI", tag, kind, len(values) // BYTES_OF[kind])
    if len(values) <= 4:
        return head + values.ljust(4, b"\0"), b""
    return head + struct.pack(order + "I", position), values + b"\0" * (len(values) % 2)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
