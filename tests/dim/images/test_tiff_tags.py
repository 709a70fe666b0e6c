"""The first directory of TIFF files: fields of every kind, damage, and fields that are added."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest

from dim.images.tiff_tags import (
    DAMAGED,
    FLIPS,
    HEIGHT,
    ICC_PROFILE,
    LARGEST_COUNT,
    ORIENTATION,
    RATIONAL,
    SHORT,
    STRIP_OFFSETS,
    UNDEFINED,
    WIDTH,
    X_RESOLUTION,
    first_number,
    first_rational,
    is_tiff,
    numbers,
    raw_bytes,
    read_tags,
    upright,
    with_tags,
)

LONG = 4


def classic(order: str, *entries: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """Return a TIFF with one directory of entries (tag, type, count, value or offset), and a tail."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    packed = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return start + struct.pack(order + "IH", 8, len(entries)) + packed + bytes(4) + tail


def big(order: str, *entries: tuple[int, int, int, bytes]) -> bytes:
    start = b"II+\0" if order == "<" else b"MM\0+"
    packed = b"".join(struct.pack(order + "HHQ", *entry[:3]) + entry[3].ljust(8, b"\0") for entry in entries)
    return start + struct.pack(order + "HHQQ", 8, 0, 16, len(entries)) + packed + bytes(8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("make", [classic, big])
def test_numbers_of_several_types(order: str, make: Callable[..., bytes]) -> None:
    content = make(  # type: ignore[operator]
        order,
        (WIDTH, SHORT, 1, struct.pack(order + "H", 7)),
        (HEIGHT, LONG, 1, struct.pack(order + "I", 70000)),
    )
    assert is_tiff(content)
    file = io.BytesIO(content)
    tags = read_tags(file)
    assert (tags.order, tags.repeated) == (order, frozenset())
    assert first_number(file, tags, WIDTH) == 7
    assert first_number(file, tags, HEIGHT) == 70000
    assert first_number(file, tags, ORIENTATION, 1) == 1
    with pytest.raises(KeyError):
        first_number(file, tags, ORIENTATION)


def test_values_that_do_not_fit_lie_elsewhere() -> None:
    offset = 8 + 2 + 3 * 12 + 4
    tail = struct.pack("<3I", 5, 6, 7) + struct.pack("<II", 300, 2) + b"profile!"
    entries = [
        (STRIP_OFFSETS, LONG, 3, struct.pack("<I", offset)),
        (X_RESOLUTION, RATIONAL, 1, struct.pack("<I", offset + 12)),
        (ICC_PROFILE, UNDEFINED, 8, struct.pack("<I", offset + 20)),
    ]
    file = io.BytesIO(classic("<", *entries, tail=tail))
    tags = read_tags(file)
    assert numbers(file, tags, STRIP_OFFSETS) == (5, 6, 7)
    assert first_number(file, tags, STRIP_OFFSETS) == 5
    assert first_rational(file, tags, X_RESOLUTION) == 150.0
    assert raw_bytes(file, tags, ICC_PROFILE) == b"profile!"
    assert raw_bytes(file, tags, ORIENTATION) is None
    with pytest.raises(KeyError):
        first_rational(file, tags, STRIP_OFFSETS)


def test_a_denominator_of_zero() -> None:
    entry = (X_RESOLUTION, RATIONAL, 1, struct.pack("<I", 8 + 2 + 12 + 4))
    file = io.BytesIO(classic("<", entry, tail=struct.pack("<II", 300, 0)))
    assert first_rational(file, read_tags(file), X_RESOLUTION) == 0


def test_the_first_of_repeated_fields_counts_and_is_reported() -> None:
    file = io.BytesIO(classic("<", (WIDTH, SHORT, 1, b"\x07"), (WIDTH, SHORT, 1, b"\x08")))
    tags = read_tags(file)
    assert tags.repeated == {WIDTH}
    assert first_number(file, tags, WIDTH) == 7


def test_damage_is_one_of_the_stated_exceptions() -> None:
    too_many = classic("<", (STRIP_OFFSETS, LONG, LARGEST_COUNT + 1, bytes(4)))
    text = classic("<", (WIDTH, 2, 1, b"x"))
    for content in (b"", b"\x89PNG....", too_many[:20]):
        with pytest.raises(DAMAGED):
            read_tags(io.BytesIO(content))
    for content, tag in ((too_many, STRIP_OFFSETS), (text, WIDTH)):
        file = io.BytesIO(content)
        with pytest.raises(DAMAGED):
            numbers(file, read_tags(file), tag)


@pytest.mark.parametrize("order", "<>")
def test_fields_are_added_and_replaced(order: str) -> None:
    before = classic(order, (WIDTH, SHORT, 1, struct.pack(order + "H", 7)), (ORIENTATION, SHORT, 1, b"\0\0"))
    turned = struct.pack(order + "H", 6)
    # The length is odd, so that the next value must be moved to an even offset.
    after = with_tags(
        before, {ORIENTATION: (SHORT, turned), ICC_PROFILE: (UNDEFINED, b"profile"), 40000: (7, b"12345")}
    )
    file = io.BytesIO(after)
    tags = read_tags(file)
    assert list(tags.fields) == sorted(tags.fields)
    assert tags.repeated == frozenset()
    assert first_number(file, tags, WIDTH) == 7
    assert first_number(file, tags, ORIENTATION) == 6
    assert raw_bytes(file, tags, ICC_PROFILE) == b"profile"
    assert raw_bytes(file, tags, 40000) == b"12345"
    assert tags.fields[ICC_PROFILE].position % 2 == tags.fields[40000].position % 2 == 0


def test_orientations() -> None:
    """TIFF 6.0, page 36: where row 0 and column 0 of the stored pixels are in the upright picture."""
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None]
    expected = {
        1: [[1, 2, 3], [4, 5, 6]],
        2: [[3, 2, 1], [6, 5, 4]],
        3: [[6, 5, 4], [3, 2, 1]],
        4: [[4, 5, 6], [1, 2, 3]],
        5: [[1, 4], [2, 5], [3, 6]],
        6: [[4, 1], [5, 2], [6, 3]],
        7: [[6, 3], [5, 2], [4, 1]],
        8: [[3, 6], [2, 5], [1, 4]],
    }
    assert set(expected) == set(FLIPS)
    for orientation, pixels in expected.items():
        assert upright(stored, orientation)[..., 0].tolist() == pixels, orientation
