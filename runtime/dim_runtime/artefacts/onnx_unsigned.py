"""Make uint8 of the values behind the ReLUs of an int8 graph, for ONNX Runtime on the CPU and OpenVINO.

TensorRT takes symmetric int8 only. Therefore an artefact has, behind a convolution, a pair of QuantizeLinear
and DequantizeLinear, a ReLU, and mostly the pair of the next convolution with the same scale. ONNX Runtime
computes the ReLU and the second pair in float32. But uint8 with the zero point 0 has the same steps, and
clips negative values by itself. So the first pair becomes uint8, and the rest is left out. OpenVINO fuses
all of that into the convolution; ``openvino_unpooling.py`` needs the integers.
"""

from __future__ import annotations

from collections.abc import Sequence

from dim_runtime.artefacts.onnx_cut import (
    INITIALISER,
    NODE,
    NODE_INPUT,
    NODE_OUTPUT,
    OUTPUT,
    TENSOR_NAME,
    VALUE_NAME,
    Node,
    contents,
    message,
    read_node,
    text,
)
from dim_runtime.artefacts.onnx_file import GRAPH_FIELD, LENGTH

TENSOR_VALUES = 9
"""Field number of TensorProto: its values as bytes."""
UINT8_TYPE, INT8_TYPE = b"\x10\x02", b"\x10\x03"
"""Encoded element types of a TensorProto."""
ZERO = b"\0"
UINT8_ZERO = "uint8_zero"
"""Name of the zero point that is added."""


def with_unsigned_values(model: bytes) -> bytes:
    """Return an ONNX file without the ReLUs that uint8 replaces; without such ReLUs, the same file.

    Values are the same up to the largest of int8. Beyond it they are no longer clipped, up to twice as far.

    Args:
        model: an ONNX file, with weights inside.
    """
    parts = []
    for field, content in contents(model):
        if field.number == GRAPH_FIELD:
            content = _changed(content)
        parts.append(content if field.kind != LENGTH else message(field.number, content))
    return b"".join(parts)


def _changed(graph: bytes) -> bytes:
    entries = [(field.number, content) for field, content in contents(graph) if field.kind == LENGTH]
    found = _Graph(entries)
    for relu in [node for node in found.nodes if node.operator == "Relu"]:
        found.replace(relu)
    others = (message(number, content) for number, content in entries if number != NODE)
    return b"".join([*(message(NODE, node.content) for node in found.nodes), *others, found.added])


class _Graph:
    """The nodes of a graph, in order, some of which are being replaced.

    Args:
        entries: field numbers of GraphProto and the encoded contents.
    """

    def __init__(self, entries: Sequence[tuple[int, bytes]]) -> None:
        self.nodes = [read_node(content) for number, content in entries if number == NODE]
        self._tensors = {text(c, TENSOR_NAME): _values(c) for number, c in entries if number == INITIALISER}
        self._outputs = {text(c, VALUE_NAME) for number, c in entries if number == OUTPUT}
        self.added = b""
        """What the graph has in addition: the zero point, if a node reads it."""

    def replace(self, relu: Node) -> None:
        """Replace a ReLU between pairs of int8 by one pair of uint8; else change nothing."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        restored = makers.get(relu.inputs[0])
        quantised = makers.get(restored.inputs[0]) if restored and self._is_restored(restored) else None
        if restored is None or quantised is None or not self._are_pair(quantised, restored):
            return
        if self._only_reader(restored) is not relu:
            return
        last, dropped = relu, [relu]
        # The next convolution's pair, where its steps are the same.
        again = self._only_reader(relu)
        after = self._only_reader(again) if again else None
        if again and after and self._are_pair(again, after) and self._same_scale(quantised, again):
            last, dropped = after, [relu, again, after]
        self.nodes = [node for node in self.nodes if not any(node is each for each in dropped)]
        self._put(quantised, _renamed(quantised, UINT8_ZERO, quantised.outputs))
        self._put(restored, _renamed(restored, UINT8_ZERO, last.outputs))
        self.added = message(
            INITIALISER, UINT8_TYPE + message(TENSOR_NAME, UINT8_ZERO.encode()) + message(TENSOR_VALUES, ZERO)
        )

    def _put(self, before: Node, after: Node) -> None:
        self.nodes = [after if node is before else node for node in self.nodes]

    def _is_restored(self, node: Node) -> bool:
        return node.operator == "DequantizeLinear" and len(node.inputs) == 3

    def _are_pair(self, quantised: Node, restored: Node) -> bool:
        """Return whether two nodes quantise to int8 around 0, and only restore that."""
        return (
            quantised.operator == "QuantizeLinear"
            and self._is_restored(restored)
            and quantised.inputs[1:] == restored.inputs[1:]
            and self._tensors.get(quantised.inputs[-1]) == [INT8_TYPE, ZERO]
            and self._only_reader(quantised) is restored
        )

    def _same_scale(self, one: Node, other: Node) -> bool:
        scale = self._tensors.get(one.inputs[1])
        return scale is not None and scale == self._tensors.get(other.inputs[1])

    def _only_reader(self, node: Node) -> Node | None:
        """Return the only node that reads a node's only output."""
        (name,) = node.outputs
        readers = [each for each in self.nodes if name in each.inputs]
        return readers[0] if len(readers) == 1 and name not in self._outputs else None


def _values(tensor: bytes) -> list[bytes]:
    """Return the encoded fields of a TensorProto but its name."""
    return [content for field, content in contents(tensor) if field.number != TENSOR_NAME]


def _renamed(node: Node, zero: str, outputs: Sequence[str]) -> Node:
    """Return a node of a pair with another zero point and other outputs."""
    inputs = (*node.inputs[:2], zero)
    parts = [message(NODE_INPUT, name.encode()) for name in inputs]
    parts += [message(NODE_OUTPUT, name.encode()) for name in outputs]
    for field, content in contents(node.content):
        if field.number not in (NODE_INPUT, NODE_OUTPUT):
            parts.append(content if field.kind != LENGTH else message(field.number, content))
    return Node(b"".join(parts), node.operator, inputs, tuple(outputs))
