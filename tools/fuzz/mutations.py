"""Mutations of bytes, of text, and of the parts that formats protect: JSON, pickles, zip, PNG and TIFF.

All take a generator, so that a seed and a number give the same input on every machine.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
"""Values at which sizes and offsets overflow."""
LARGEST_INPUT = 1 << 20
"""Bytes of an input; larger ones are cut."""
DEPTHS = (10, 1_000, 100_000)
"""Nested brackets."""
TEXTS = ("", "\0", "../../etc/passwd", "\udc80".encode("utf-8", "surrogatepass").decode("latin-1"), "é" * 300)
"""Strings that are no usual names."""


def of_bytes(draw: random.Random, content: bytes) -> bytes:
    """Apply one to four changes of bytes."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        draw.choice(_BYTE_CHANGES)(draw, changed)
    return bytes(changed[:LARGEST_INPUT])


def _flip(draw: random.Random, content: bytearray) -> None:
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _overwrite_number(draw: random.Random, content: bytearray) -> None:
    size, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
    if len(content) >= size:
        at = draw.randrange(len(content) - size + 1)
        value = draw.choice(NUMBERS) % (1 << 8 * size)
        content[at : at + size] = value.to_bytes(size, "big" if order == "big" else "little")


def _cut_off(draw: random.Random, content: bytearray) -> None:
    del content[draw.randint(0, len(content)) :]


def _remove(draw: random.Random, content: bytearray) -> None:
    start = draw.randint(0, len(content))
    del content[start : start + draw.choice((1, 2, 4, 16, 256))]


def _insert(draw: random.Random, content: bytearray) -> None:
    start = draw.randint(0, len(content))
    content[start:start] = draw.randbytes(draw.choice((1, 2, 4, 16, 256)))


def _repeat(draw: random.Random, content: bytearray) -> None:
    start = draw.randint(0, len(content))
    part = content[start : start + draw.choice((4, 32, 512))]
    content[start:start] = part * draw.choice((1, 2, 50))


def _overwrite(draw: random.Random, content: bytearray) -> None:
    start = draw.randint(0, len(content))
    length = min(draw.choice((1, 4, 64)), len(content) - start)
    content[start : start + length] = draw.choice((b"\0", b"\xff", b"[", b"9")) * length


_BYTE_CHANGES = (
    _flip,
    _flip,
    _overwrite_number,
    _overwrite_number,
    _cut_off,
    _remove,
    _insert,
    _repeat,
    _overwrite,
)


def of_text(draw: random.Random, content: bytes) -> bytes:
    """Change tokens of a text: numbers, brackets, lines; or its bytes."""
    choice = draw.randrange(4)
    if choice == 0:
        bracket = draw.choice(("[", '{"a":', "(", "a = [", "[[", "'"))
        nested = (bracket * draw.choice(DEPTHS)).encode()
        at = draw.randint(0, len(content))
        return (content[:at] + nested + content[at:])[:LARGEST_INPUT]
    if choice == 1:
        digits = draw.choice((b"9" * 5_000, b"-1", b"1e999", b"nan", b"0x10", b"1" * 25))
        places = [at for at, byte in enumerate(content) if 48 <= byte < 58]
        at = draw.choice(places) if places else 0
        return content[:at] + digits + content[at + 1 :]
    if choice == 2:
        lines = content.split(b"\n")
        at = draw.randrange(len(lines))
        lines[at : at + 1] = draw.choice(
            ([], [lines[at]] * 3, [lines[at] * 40], [draw.choice(lines)], [b"\0"])
        )
        return b"\n".join(lines)[:LARGEST_INPUT]
    return of_bytes(draw, content)


def of_json(draw: random.Random, content: bytes) -> bytes:
    """Replace a value of a JSON document by one of another kind, or change its text."""
    if draw.randrange(3) == 0:
        return of_text(draw, content)
    document = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        document = _replaced(draw, document)
    return json.dumps(document).encode()[:LARGEST_INPUT]


def _replaced(draw: random.Random, value: Any) -> Any:
    """Return the document with one value, at any depth, replaced."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        changed = _replaced(draw, value[key])
        kept = {name: entry for name, entry in value.items() if name != key or draw.random() < 0.8}
        return kept | {draw.choice((key, key, key, draw.choice(TEXTS))): changed}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return [*value[:at], _replaced(draw, value[at]), *value[at + draw.randrange(2) :]]
    numbers = (-1, 0, 1e308, float("nan"), 10**400, draw.choice(NUMBERS), draw.random())
    texts = (str(value), draw.choice(TEXTS), "x" * 10_000)
    return draw.choice((None, True, [], {}, [[]], [value] * 20, {"a": value}, *numbers, *texts))


def of_sized_json(prefix: bytes, form: str) -> Mutation:
    """Return a mutation of ``prefix``, a length, a JSON document and bytes; mostly the length stays true."""

    def mutate(draw: random.Random, content: bytes) -> bytes:
        start = len(prefix) + struct.calcsize(form)
        (length,) = struct.unpack(form, content[len(prefix) : start])
        document, rest = content[start : start + length], content[start + length :]
        choice = draw.randrange(4)
        if choice == 0:
            return of_bytes(draw, content)
        if choice == 1:
            return prefix + struct.pack(form, length) + document + of_bytes(draw, rest)
        document = of_json(draw, document)
        return prefix + struct.pack(form, len(document)) + document + rest

    return mutate


def of_pickle(draw: random.Random, content: bytes) -> bytes:
    """Remove, repeat, exchange, insert or re-argue opcodes of a pickle."""
    parts = _opcodes(content)
    for _ in range(draw.randint(1, 4)):
        at, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        choice = draw.randrange(6)
        if choice == 0:
            parts[at : at + 1] = []
        elif choice == 1:
            parts[at : at + 1] = [parts[at]] * draw.choice((2, 3, 1_000))
        elif choice == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif choice == 3:
            parts[at] = parts[at][:1] + of_bytes(draw, parts[at][1:])
        else:
            parts[at:at] = [draw.choice(OPCODES)(draw)]
        parts = parts or [b"."]
    return b"".join(parts)[:LARGEST_INPUT]


def _opcodes(content: bytes) -> list[bytes]:
    starts = [place for _, _, place in pickletools.genops(content) if place is not None]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


OPCODES: Sequence[Callable[[random.Random], bytes]] = (
    lambda draw: b"cos\nsystem\n",
    lambda draw: b"\x8c\x02os\x8c\x06system\x93",
    lambda draw: b"cbuiltins\n" + draw.choice((b"eval", b"getattr", b"list", b"bytearray")) + b"\n",
    lambda draw: b"\x8c\x04true\x85R",
    lambda draw: draw.choice((b"R", b"b", b"\x81", b"\x92", b"o", b"Q", b"i__main__\nX\n")),
    lambda draw: b"r" + struct.pack("<I", draw.choice(NUMBERS) % 2**32),
    lambda draw: b"h" + bytes([draw.randrange(256)]),
    lambda draw: b"\x85" * draw.choice(DEPTHS),
    lambda draw: b"(" * draw.choice(DEPTHS),
    lambda draw: b"2" * draw.choice(DEPTHS),
    lambda draw: b"\x8b" + struct.pack("<I", 2_000) + b"\x7f" * 2_000,
    lambda draw: b"I" + b"9" * 5_000 + b"\n",
    lambda draw: b"\x96" + struct.pack("<Q", draw.choice(NUMBERS)),
    lambda draw: b"X" + struct.pack("<I", draw.choice(NUMBERS) % 2**32),
    lambda draw: bytes([draw.randrange(256)]),
)
"""Opcodes that look for code, memory or depth."""


def of_zipped(inner: Mutation) -> Mutation:
    """Return a mutation of one entry of a zip archive, whose check sums stay right; or of the archive."""

    def mutate(draw: random.Random, content: bytes) -> bytes:
        if draw.randrange(5) == 0:
            return of_bytes(draw, content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        name = draw.choice([name for name in entries if name.endswith(".pkl")] * 8 + list(entries))
        entries[name] = (inner if name.endswith(".pkl") else of_bytes)(draw, entries[name])
        written = io.BytesIO()
        with zipfile.ZipFile(
            written, "w", draw.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
        ) as archive:
            for key, value in entries.items():
                archive.writestr(key, value)
        return written.getvalue()

    return mutate


def of_any_pickle(draw: random.Random, content: bytes) -> bytes:
    """Change a pickle, or the pickles in a zip archive, by opcodes."""
    if content[:2] == b"PK":
        return of_zipped(of_pickle)(draw, content)
    return of_bytes(draw, content) if draw.randrange(5) == 0 else of_pickle(draw, content)


def of_response(draw: random.Random, content: bytes) -> bytes:
    """Change the JSON of an HTTP response, whose lengths mostly stay right; or its bytes."""
    if draw.randrange(3) == 0:
        return of_text(draw, content)
    head, _, body = content.partition(b"\r\n\r\n")
    end = len(body)
    if b"Inference-Header" in head:
        # Behind the document stands the tensor, in binary.
        end = int(head.split(b"Inference-Header-Content-Length: ")[1].partition(b"\r\n")[0])
    document = of_json(draw, body[:end])
    body = document + body[end:]
    lines = [line for line in head.split(b"\r\n") if b"-Length" not in line]
    if b"Inference-Header" in head:
        lines.append(b"Inference-Header-Content-Length: %d" % len(document))
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


def of_image(draw: random.Random, content: bytes) -> bytes:
    """Change an image file inside the parts that its format protects, or its bytes."""
    if draw.randrange(3) == 0:
        return of_bytes(draw, content)
    if content[:4] == b"\x89PNG":
        return _png(draw, content)
    if content[:2] in (b"II", b"MM"):
        return _tiff(draw, content)
    return of_bytes(draw, content)


def _png(draw: random.Random, content: bytes) -> bytes:
    """Change one chunk; its check sum and, mostly, its length stay right."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    number = draw.randrange(len(chunks))
    name, body = chunks[number]
    changed = (name, of_bytes(draw, body))
    chunks[number : number + 1] = draw.choice(([changed], [changed], [changed], [], [changed] * 3))
    parts = [struct.pack(">I", len(body)) + _summed(name + body) for name, body in chunks]
    if parts and draw.randrange(10) == 0:
        at = draw.randrange(len(parts))
        parts[at] = struct.pack(">I", draw.choice(NUMBERS) % 2**32) + parts[at][4:]
    return content[:8] + b"".join(parts)


def _summed(content: bytes) -> bytes:
    return content + struct.pack(">I", zlib.crc32(content))


TAGS = (254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)
"""TIFF tags that describe the layout of the pixels."""


def _tiff(draw: random.Random, content: bytes) -> bytes:
    """Change the tag, type, count or value of entries of the first directory of a classic TIFF."""
    order = "<" if content[:2] == b"II" else ">"
    version, first = struct.unpack_from(order + "HI", content, 2)
    if version != 42 or first + 2 > len(content):
        return of_bytes(draw, content)
    changed = bytearray(content)
    (count,) = struct.unpack_from(order + "H", content, first)
    for _ in range(draw.randint(1, 3)):
        at = first + 2 + 12 * draw.randrange(max(count, 1))
        if at + 12 > len(changed):
            continue
        tag, kind, number, value = struct.unpack_from(order + "HHII", changed, at)
        if (field := draw.randrange(5)) == 0:
            tag = draw.choice(TAGS)
        elif field == 1:
            kind = draw.randrange(20)
        elif field == 2:
            number = draw.choice(NUMBERS) % 2**32
        else:
            flipped = value ^ (1 << draw.randrange(32))
            value = draw.choice((flipped, draw.choice(NUMBERS) % 2**32, draw.randrange(9)))
        struct.pack_into(order + "HHII", changed, at, tag, kind, number, value)
    return bytes(changed)
