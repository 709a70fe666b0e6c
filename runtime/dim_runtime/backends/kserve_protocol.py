"""Documents and tensors of the Open Inference Protocol (KServe v2): what is sent, and what comes back.

The protocol: https://github.com/kserve/open-inference-protocol. Over HTTP tensors travel as binary data
behind the JSON (the protocol's binary tensor data extension: row-major, little-endian), or as numbers in it.
Nothing that a server sends is trusted: a response that is not of the protocol raises :class:`ProtocolError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from dim.arrays import Array, Float32, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, METADATA_KEY, OUTPUT_ALPHA

Document = TypeVar("Document", bound=BaseModel)

JSON_LENGTH = "Inference-Header-Content-Length"
"""Header: how many bytes of the body are JSON; tensors follow."""
IMAGE_TYPE, TRIMAP_TYPE, ALPHA_TYPE = "UINT8", "UINT8", "FP32"

JSON_BYTES_PER_VALUE = 32
"""Upper bound of the text of one float32 in JSON, bytes; a binary one has 4."""
DOCUMENT_BYTES = 16 << 20
"""Largest description or configuration of a model that is read, bytes."""


class ProtocolError(ValueError):
    """A response that is not of the protocol, or not an alpha of the windows that were sent."""


class _Tensor(BaseModel):
    name: str
    datatype: str


class _Model(BaseModel):
    """A model's description; KServe's Python server leaves the tensors out."""

    name: str
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None


class _Text(BaseModel):
    string_value: str = ""


class _Configuration(BaseModel):
    """The part of Triton's model configuration that is read."""

    parameters: dict[str, _Text] = {}


class _OutputParameters(BaseModel):
    binary_data_size: int | None = Field(default=None, ge=0)


class _Output(_Tensor):
    shape: list[int]
    parameters: _OutputParameters | None = None
    data: Any = None


class _Response(BaseModel):
    outputs: list[_Output]


def request_body(image: UInt8, trimap: UInt8, *, binary: bool) -> tuple[bytes, list[memoryview]]:
    """Return the JSON of an inference request and the tensors that follow it; none if they are in the JSON.

    Args:
        image: uint8 N, H, W, 3, RGB.
        trimap: uint8 N, H, W.
        binary: False for servers that read numbers in JSON only.
    """
    arrays = {INPUT_IMAGE: np.ascontiguousarray(image), INPUT_TRIMAP: np.ascontiguousarray(trimap)}
    inputs = [_input(name, array, binary=binary) for name, array in arrays.items()]
    parameters = {"parameters": {"binary_data": True}} if binary else {}
    # KServe's Python server returns an internal error to requests without an identity.
    document = {"id": uuid4().hex, "inputs": inputs, "outputs": [{"name": OUTPUT_ALPHA, **parameters}]}
    tensors = (
        [memoryview(array.reshape(-1).data) for array in arrays.values() if array.size] if binary else []
    )
    return json.dumps(document, separators=(",", ":")).encode(), tensors


def _input(name: str, array: UInt8, *, binary: bool) -> dict[str, Any]:
    content = (
        {"parameters": {"binary_data_size": array.nbytes}} if binary else {"data": array.ravel().tolist()}
    )
    return {"name": name, "shape": list(array.shape), "datatype": IMAGE_TYPE, **content}


def read_alpha(body: bytes | bytearray, json_length: str | None, shape: tuple[int, ...]) -> Float32:
    """Return the alpha in the body of a response to an inference request.

    Args:
        body: JSON, and tensors behind it.
        json_length: the header :data:`JSON_LENGTH`; None where all of the body is JSON.
        shape: N, H, W of the windows that were sent.

    Returns:
        float32 N, H, W; its values are not looked at.

    Raises:
        ProtocolError: anything else.
    """
    try:
        length = len(body) if json_length is None else int(json_length)
    except ValueError as error:
        raise ProtocolError(f"{JSON_LENGTH}: {json_length[:40] if json_length else ''}") from error
    if not 0 <= length <= len(body):
        raise ProtocolError(f"{length} bytes of JSON in a body of {len(body)} bytes")
    offset = length
    outputs = _parsed(_Response, bytes(body[:length])).outputs
    for output in outputs:
        size = output.parameters.binary_data_size if output.parameters else None
        if output.name == OUTPUT_ALPHA:
            values = output.data if size is None else memoryview(body)[offset : offset + size]
            return to_alpha(output.datatype, output.shape, values, shape)
        offset += size or 0
    raise ProtocolError(f"outputs {[output.name[:40] for output in outputs[:10]]}, not {OUTPUT_ALPHA!r}")


def to_alpha(datatype: str, found: Sequence[int], values: object, shape: tuple[int, ...]) -> Float32:
    """Return an output of either transport as an array.

    Args:
        datatype, found: its datatype and shape, as the server states them.
        values: its bytes, little-endian, or its numbers.
        shape: N, H, W of the windows that were sent.

    Raises:
        ProtocolError: another datatype, shape or number of values.
    """
    if datatype != ALPHA_TYPE:
        raise ProtocolError(f"alpha of datatype {datatype[:40]}, not {ALPHA_TYPE}")
    if tuple(found) != shape:
        raise ProtocolError(f"alpha of shape {tuple(found)[:10]}, not {shape}")
    array = _array(values)
    if array.size != math.prod(shape):
        raise ProtocolError(f"{array.size} values of alpha for the shape {shape}")
    return array.reshape(shape)


def _array(values: object) -> Array:
    try:
        if isinstance(values, bytes | bytearray | memoryview):
            return np.frombuffer(values, "<f4")
        return np.asarray(values, np.float32).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(str(error)) from error


def read_description(body: bytes | bytearray) -> dict[str, str]:
    """Return the datatypes of inputs and outputs by name; none where the server does not declare them.

    Raises:
        ProtocolError: the document describes no model.
    """
    model = _parsed(_Model, body)
    return {tensor.name: tensor.datatype for tensor in [*(model.inputs or []), *(model.outputs or [])]}


def read_document(body: bytes | bytearray) -> str | None:
    """Return the artefact's document in Triton's configuration of a model; None if it is not there.

    Raises:
        ProtocolError: not a configuration.
    """
    parameter = _parsed(_Configuration, body).parameters.get(METADATA_KEY)
    return parameter.string_value if parameter else None


def _parsed(kind: type[Document], body: bytes | bytearray) -> Document:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ProtocolError(f"{where}: {first['msg']}" if where else str(first["msg"])) from error
