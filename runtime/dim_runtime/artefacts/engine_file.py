"""TensorRT engine files: a header that describes the plan, then the plan. Needs no engine package.

======  ==================  ===========================================================
 bytes   what                encoding
======  ==================  ===========================================================
 8       :data:`MAGIC`       ASCII
 4       length of the text  unsigned, little-endian
 n       the document        JSON in UTF-8, :class:`~dim.contract.ArtefactMetadata`
 rest    the plan            as TensorRT serialised it; its length and SHA-256 are in the document
======  ==================  ===========================================================

A plan is machine code for a GPU: open only engines that you trust, as you would a program.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dim.contract import ArtefactMetadata, EngineInfo
from dim.files import problem_of
from dim_runtime.errors import ArtefactError

MAGIC = b"DIM-TRT1"
LENGTH = struct.Struct("<I")
LARGEST_DOCUMENT = 1 << 24
"""Bytes; a longer document is not one of this toolkit."""

MAKE_ONE = "dim-export trt MODEL.onnx -o MODEL.engine"


class EngineHeader(NamedTuple):
    """The content of a file in front of its plan."""

    metadata: ArtefactMetadata
    engine: EngineInfo
    plan_offset: int
    """Bytes from the start of the file to the plan."""


def write_engine(path: Path, metadata: ArtefactMetadata, plan: bytes) -> None:
    """Write an engine file; ``metadata.engine`` gets the plan's length and digest here.

    Raises:
        ValueError: the metadata has no engine section.
    """
    if metadata.engine is None:
        raise ValueError("an engine file needs metadata with an engine section")
    measured = {"plan_bytes": len(plan), "plan_sha256": hashlib.sha256(plan).hexdigest()}
    engine = metadata.engine.model_copy(update=measured)
    text = metadata.model_copy(update={"engine": engine}).to_json().encode()
    with path.open("wb") as file:
        file.writelines((MAGIC, LENGTH.pack(len(text)), text, plan))


def read_header(path: Path) -> EngineHeader:
    """Read the header alone, which is quick for a plan of any size.

    Raises:
        ArtefactError: missing, cut off, or not an engine file of this toolkit.
        dim.contract.ContractError: a document that this release cannot read.
    """
    problem = problem_of(path)
    if problem is not None:
        raise ArtefactError(f"cannot open the engine {path}", got=problem, fix=f"make one: {MAKE_ONE}")
    with path.open("rb") as file:
        header = _header(file, path)
    found, expected = path.stat().st_size, header.plan_offset + header.engine.plan_bytes
    if found < expected:
        raise _cut_off(path, found, f"{expected} bytes")
    if found > expected:
        raise _damaged(path, got=f"{found} bytes", expected=f"{expected} bytes")
    return header


def read_plan(path: Path, header: EngineHeader) -> bytes:
    """Read the plan; ArtefactError if it differs from its digest in the header."""
    with path.open("rb") as file:
        file.seek(header.plan_offset)
        plan = file.read(header.engine.plan_bytes)
    found = hashlib.sha256(plan).hexdigest()
    if found != header.engine.plan_sha256:
        raise _damaged(path, got=f"a plan with SHA-256 {found}", expected=header.engine.plan_sha256)
    return plan


def _header(file: BinaryIO, path: Path) -> EngineHeader:
    start = file.read(len(MAGIC))
    if start != MAGIC:
        raise _foreign(path, start)
    length = _length(file, path)
    text = file.read(length)
    if len(text) < length:
        raise _cut_off(path, path.stat().st_size, f"a document of {length} bytes")
    try:
        document = text.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, got=str(error), expected="UTF-8") from error
    metadata = ArtefactMetadata.from_json(document, source=str(path))
    if metadata.engine is None:
        raise _damaged(path, got="a document without an engine section", expected="one with it")
    return EngineHeader(metadata, metadata.engine, file.tell())


def _length(file: BinaryIO, path: Path) -> int:
    encoded = file.read(LENGTH.size)
    if len(encoded) < LENGTH.size:
        raise _cut_off(path, path.stat().st_size, "the length of the document")
    length = int(LENGTH.unpack(encoded)[0])
    if length > LARGEST_DOCUMENT:
        raise _damaged(
            path, got=f"a document of {length} bytes", expected=f"at most {LARGEST_DOCUMENT} bytes"
        )
    return length


def _foreign(path: Path, start: bytes) -> ArtefactError:
    return ArtefactError(
        f"cannot use {path}: it is not an engine file of this toolkit",
        got=f"a file that starts with {start!r}" if start else "an empty file",
        expected=f"{MAGIC!r}, then a document with context, precision and shapes, then the plan",
        why="a bare TensorRT plan, such as trtexec writes, contains none of that",
        fix=f"make one: {MAKE_ONE}",
    )


def _cut_off(path: Path, found: int, expected: str) -> ArtefactError:
    return ArtefactError(
        f"cannot read {path}: the file is cut off",
        got=f"{found} bytes",
        expected=expected,
        fix=f"copy it again, or make it again: {MAKE_ONE}",
    )


def _damaged(path: Path, *, got: str, expected: str) -> ArtefactError:
    return ArtefactError(
        f"cannot use {path}: the file is damaged",
        got=got,
        expected=expected,
        fix=f"copy it again, or make it again: {MAKE_ONE}",
    )
