"""Cut a part out of an ONNX file, and make inputs of its crops, without any ONNX package.

An exported file computes whole windows, from image and trimap to alpha. The runtime needs parts of its graph:
everything up to the refiner's output, and the propagation of that output. A part consists of the same nodes
and weights, copied as bytes, with other inputs and outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dim.contract import (
    INPUT_IMAGE,
    INPUT_TRIMAP,
    OUTPUT_ALPHA,
    REFINED,
    TRUST,
    ArtefactMetadata,
    NetworkConfig,
)
from dim.contract.cropping import Margins, crop_names, crops, starts_and_ends
from dim_runtime.artefacts.onnx_file import GRAPH_FIELD, LENGTH, MAKE_ONE, Field, fields
from dim_runtime.errors import ArtefactError, ChangedGraphWarning

NODE, INITIALISER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13
"""Field numbers of GraphProto."""
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR = 1, 2, 4
"""Field numbers of NodeProto."""
TENSOR_NAME, VALUE_NAME = 8, 1
"""Field numbers of the names of TensorProto and ValueInfoProto."""
FLOAT32, UINT8, INT64 = 1, 2, 7
"""Numbers of element types."""


class Value(NamedTuple):
    """An input or output of a part: its element type, and its sides; None is any."""

    kind: int
    shape: tuple[int | None, ...]


PLANES = Value(FLOAT32, (None, 1, None, None))
"""Alpha or trust, N, 1, H, W."""
IMAGE_AND_TRIMAP = {
    INPUT_IMAGE: Value(UINT8, (None, None, None, 3)),
    INPUT_TRIMAP: Value(UINT8, (None, None, None)),
}
ESTIMATE = {REFINED: PLANES, TRUST: PLANES}
ALPHA = {OUTPUT_ALPHA: Value(FLOAT32, (None, None, None))}


def crop_inputs(network: NetworkConfig) -> dict[str, Value]:
    """Return the inputs of a cropping graph that limit its crops."""
    return {limit: Value(INT64, (2,)) for name in crop_names(network) for limit in starts_and_ends(name)}


def crop_limits(network: NetworkConfig, margins: Margins) -> dict[str, npt.NDArray[np.int64]]:
    """Return the inputs of a cropping graph, int64 of shape 2, for windows with these margins."""
    found = {}
    for name, crop in crops(network, margins).items():
        starts, ends = starts_and_ends(name)
        found[starts], found[ends] = np.array(crop.starts, np.int64), np.array(crop.ends, np.int64)
    return found


class Parts(NamedTuple):
    """Parts of an artefact that the runtime opens.

    Attributes:
        metadata: the file's; without crops and phases if its graph lacks them.
        network: image, trimap and the crops' limits to alpha, or to the estimate where there are phases; the
            file itself where there are no crops.
        propagation: the second phase; None where there is one phase.
    """

    metadata: ArtefactMetadata
    network: bytes | Path
    propagation: bytes | None


class ChangedGraphError(ArtefactError):
    """A graph lacks values that its metadata declares; ``missing`` has their names."""

    def __init__(self, path: Path, missing: Sequence[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"cannot cut {path}: its graph is not the one that its metadata describes",
            got=f"no {', '.join(missing)}",
            why="the file was changed after its export",
            fix=f"export the checkpoint again: {MAKE_ONE}",
        )


def read_parts(path: Path, metadata: ArtefactMetadata) -> Parts:
    """Return the parts of an artefact; of a graph that another tool has changed, the whole, with a warning.

    Such tools (onnxslim, onnxsim) rename values and join constants, but keep the metadata and the alpha.
    """
    if not metadata.crops:
        return Parts(metadata, path, None)
    try:
        network = cropping_graph(path, metadata.network, phases=metadata.phases)
        return Parts(metadata, network, propagation_graph(path) if metadata.phases else None)
    except ChangedGraphError as error:
        warnings.warn(ChangedGraphWarning(path, error.missing), stacklevel=2)
        return Parts(metadata.model_copy(update={"crops": False, "phases": False}), path, None)


def cropping_graph(path: Path, network: NetworkConfig, *, phases: bool) -> bytes:
    """Return the network as an ONNX file whose crops are inputs.

    Args:
        path: an artefact with crops.
        network: its network.
        phases: its outputs are :data:`~dim.contract.REFINED` and :data:`~dim.contract.TRUST`, not alpha.

    Raises:
        ChangedGraphError: the graph does not have what its metadata declares.
    """
    return cut(path, {**IMAGE_AND_TRIMAP, **crop_inputs(network)}, ESTIMATE if phases else ALPHA)


def propagation_graph(path: Path) -> bytes:
    """Return the propagation as an ONNX file: image, trimap, refined and trust to alpha.

    Raises:
        ChangedGraphError: as :func:`cropping_graph`.
    """
    return cut(path, {**IMAGE_AND_TRIMAP, **ESTIMATE}, ALPHA)


def cut(path: Path, inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> bytes:
    """Return the part of an ONNX file between values of its graph.

    Args:
        path: the file.
        inputs: inputs of the part: inputs, initialisers or inner values of the graph.
        outputs: outputs of the part.

    Raises:
        ChangedGraphError: the graph lacks one of these values.
    """
    data = path.read_bytes()
    parts = []
    for field, content in contents(data):
        if field.number == GRAPH_FIELD:
            content = _cut_graph(path, content, inputs, outputs)
        parts.append(content if field.kind != LENGTH else message(field.number, content))
    return b"".join(parts)


class Node(NamedTuple):
    """A NodeProto, encoded, with its operator and the names of its inputs and outputs."""

    content: bytes
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def _cut_graph(path: Path, graph: bytes, inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> bytes:
    entries = [(field.number, content) for field, content in contents(graph) if field.kind == LENGTH]
    nodes = [read_node(content) for number, content in entries if number == NODE]
    tensors = {text(c, TENSOR_NAME): c for number, c in entries if number == INITIALISER}
    declared = {text(c, VALUE_NAME) for number, c in entries if number == INPUT}
    computed = {name for node in nodes for name in node.outputs}
    missing = [name for name in inputs if name not in {*tensors, *declared, *computed}]
    missing += [name for name in outputs if name not in computed]
    if missing:
        raise ChangedGraphError(path, missing)
    kept = _needed(nodes, outputs, inputs)
    read = {name for node in kept for name in node.inputs}
    changed = (NODE, INITIALISER, INPUT, OUTPUT, VALUE_INFO)
    return b"".join(
        [
            *(message(NODE, node.content) for node in kept),
            *(message(INITIALISER, c) for name, c in tensors.items() if name in read - {*inputs}),
            *(message(INPUT, _value_info(name, value)) for name, value in inputs.items()),
            *(message(OUTPUT, _value_info(name, value)) for name, value in outputs.items()),
            *(message(number, content) for number, content in entries if number not in changed),
        ]
    )


def _needed(nodes: Sequence[Node], outputs: Collection[str], given: Collection[str]) -> list[Node]:
    """Return the nodes that compute the outputs from what is given, in their order, which is topological."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(name for name in node.inputs if name not in given)
    return kept[::-1]


def read_node(content: bytes) -> Node:
    """Read the names in an encoded NodeProto."""
    names: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_OPERATOR: []}
    for field, part in contents(content):
        if field.number in names:
            names[field.number].append(part.decode())
    inputs, outputs, (operator,) = names.values()
    return Node(content, operator, tuple(inputs), tuple(outputs))


def text(content: bytes, number: int) -> str:
    """Return the text in a field of an encoded message; empty where there is none."""
    return next((part.decode() for field, part in contents(content) if field.number == number), "")


def contents(encoded: bytes) -> Iterator[tuple[Field, bytes]]:
    """Yield a message's fields; of texts, bytes and messages their content, else the whole encoded field."""
    file = BytesIO(encoded)
    start = 0
    for field in fields(file, len(encoded)):
        at = file.tell()
        stop = at + field.length
        yield field, encoded[at:stop] if field.kind == LENGTH else encoded[start : field.end]
        start = field.end


def _value_info(name: str, value: Value) -> bytes:
    """Encode a ValueInfoProto: its name, and the element type and shape of a tensor."""
    # The numbers are fields, from the inside out: a side, the shape's sides, type and shape, name and tensor.
    sides = (b"" if side is None else _number(1, side) for side in value.shape)
    shape = b"".join(message(1, side) for side in sides)
    tensor = _number(1, value.kind) + message(2, shape)
    return message(1, name.encode()) + message(2, message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def message(field: int, content: bytes) -> bytes:
    """Encode a field whose content is a text, bytes, or a message."""
    return _varint(field << 3 | LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
