"""The metadata of an ONNX file, read without any ONNX package and without loading its weights.

An ONNX file is one protocol-buffers message. Its top level is a list of fields, each with a tag and, for the
kinds used there, a length: walking over it reads a few hundred bytes, finds the metadata, and notices a file
that was cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dim.contract import METADATA_KEY, ArtefactMetadata
from dim.files import problem_of
from dim_runtime.errors import ArtefactError

GRAPH_FIELD, METADATA_FIELD = 7, 14
"""Field numbers of ModelProto."""
KEY_FIELD, VALUE_FIELD = 1, 2
"""Field numbers of StringStringEntryProto."""
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""
LARGEST_ENTRY = 1 << 24
"""A metadata entry beyond 16 MiB is no text of ours."""

MAKE_ONE = "dim-export onnx CHECKPOINT -o MODEL.onnx"


def read_metadata(path: Path) -> ArtefactMetadata:
    """Read the artefact's document.

    Raises:
        ArtefactError: missing, cut off, not ONNX, or an ONNX file of another origin.
        dim.contract.ContractError: a document that this release cannot read.
    """
    document = read_properties(path).get(METADATA_KEY)
    if document is None:
        raise ArtefactError(
            f"cannot use {path}: it is an ONNX file, but not an artefact of this toolkit",
            got="no metadata",
            expected=f"the property {METADATA_KEY!r}, with context, precision and shapes",
            fix=f"export the checkpoint with this toolkit: {MAKE_ONE}",
        )
    return ArtefactMetadata.from_json(document, source=str(path))


def read_properties(path: Path) -> dict[str, str]:
    """Return all ``metadata_props`` of an ONNX file; ArtefactError if it is missing, cut off or not ONNX."""
    # Opening a pipe would wait for its writer. Path.is_file raises the system's error for too long a name.
    if not os.path.isfile(path):
        raise ArtefactError(
            f"cannot open the model {path}", got=problem_of(path), fix=f"make one: {MAKE_ONE}"
        )
    try:
        with path.open("rb") as file:
            return _properties(file, path.stat().st_size)
    except EOFError as error:
        raise ArtefactError(
            f"cannot read {path}: the file is cut off",
            got=f"{path.stat().st_size} bytes",
            why=str(error),
            fix=f"copy it again, or make it again: {MAKE_ONE}",
        ) from error
    except _ExternalDataError as error:
        raise ArtefactError(
            f"cannot use {path}: its weights are in other files",
            got="a tensor with external data",
            expected="one file that holds all weights, as this toolkit writes it",
            why="such a graph can read any file of this machine",
            fix=f"make one: {MAKE_ONE}",
        ) from error
    except OSError as error:
        raise ArtefactError(f"cannot open the model {path}", why=error.strerror or str(error)) from error
    except ValueError as error:
        raise ArtefactError(
            f"cannot read {path}: it is not an ONNX file", why=str(error), fix=f"make one: {MAKE_ONE}"
        ) from error


EXTERNAL_FIELD = 13
"""Field external_data of TensorProto: its values are in another file."""
MESSAGES: dict[str, dict[int, str]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Fields of ONNX's messages that lead to tensors, and the message that each holds."""
DEEPEST = 64
"""Nested messages; a graph of this toolkit has none inside another one."""


MOST_FIELDS = 500_000
"""Fields of a file that are read, in one to two seconds; the embedded artefact has 8 409."""


def _counted(found: Iterator[Field], budget: Iterator[int]) -> Iterator[Field]:
    """Yield the fields; ValueError when those of the whole file are more than the budget."""
    for field in found:
        if next(budget, None) is None:
            raise ValueError(f"it has more than {MOST_FIELDS} fields")
        yield field


def _require_embedded(
    file: BinaryIO, end: int, budget: Iterator[int], kind: str = "graph", depth: int = 0
) -> None:
    """Raise _ExternalDataError if a tensor of this message reads another file of the machine."""
    if depth > DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for field in _counted(fields(file, end), budget):
        if kind == "tensor" and field.number == EXTERNAL_FIELD:
            raise _ExternalDataError
        inner = MESSAGES[kind].get(field.number)
        if inner is not None and field.length:
            _require_embedded(file, file.tell() + field.length, budget, inner, depth + 1)


class _ExternalDataError(Exception):
    """A tensor of the graph is stored in another file."""


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: which field.
        kind: its wire type.
        length: bytes of its content; 0 for numbers.
        end: position of its end in the file.
    """

    number: int
    kind: int
    length: int
    end: int


def _properties(file: BinaryIO, size: int) -> dict[str, str]:
    found: dict[str, str] = {}
    has_graph = False
    budget = iter(range(MOST_FIELDS))
    for field in _counted(fields(file, size), budget):
        if field.number == GRAPH_FIELD:
            has_graph = True
            _require_embedded(file, file.tell() + field.length, budget)
        if field.number == METADATA_FIELD and field.length <= LARGEST_ENTRY:
            key, value = _entry(file, file.tell() + field.length)
            found[key] = value
    if not has_graph:
        raise ValueError("it holds no graph")
    return found


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    texts = {field.number: file.read(field.length).decode() for field in fields(file, end)}
    return texts.get(KEY_FIELD, ""), texts.get(VALUE_FIELD, "")


def fields(file: BinaryIO, end: int) -> Iterator[Field]:
    """Yield the fields up to ``end``; the file is positioned at a field's content when it is yielded.

    Raises:
        ValueError: no field of a protocol buffer.
        EOFError: a field ends beyond ``end``, or the file within a number.
    """
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has number 0")
        length = _content_length(file, kind)
        content_end = file.tell() + length
        if content_end > end:
            raise EOFError(f"field {number} ends at byte {content_end}")
        yield Field(number, kind, length if kind == LENGTH else 0, content_end)
        file.seek(content_end)


def _content_length(file: BinaryIO, kind: int) -> int:
    if kind == VARINT:
        _varint(file)
        return 0
    if kind == LENGTH:
        return _varint(file)
    if kind in (EIGHT_BYTES, FOUR_BYTES):
        return 8 if kind == EIGHT_BYTES else 4
    raise ValueError(f"wire type {kind}")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("the file ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is longer than 64 bits")
