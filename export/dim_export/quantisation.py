"""int8 as Q/DQ nodes in an exported float32 graph.

Symmetric everywhere, with zero point 0; weights per output channel; biases stay in float, because TensorRT
refuses integer ones. Of each quantised convolution

* the weights are stored as int8 behind a DequantizeLinear;
* the input passes through QuantizeLinear and DequantizeLinear;
* the output does too, before its ReLU and with the scale of the next convolution's input: ONNX Runtime runs
  a convolution in integers only where a QuantizeLinear follows it directly. It costs no accuracy. What lies
  below the range is negative, and the ReLU makes it 0; pooling and unpooling move values and make no new
  ones, so the next convolution's own pair finds them on its grid already.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnxscript import ir

from dim.errors import CheckpointError, InputError

LARGEST_INT8 = 127
"""-128 is not used, so that the range is symmetric."""

Float32 = npt.NDArray[np.float32]


class Int8Weights(NamedTuple):
    """``values`` int8 O, I, K, K and ``scales`` float32 O: weight ≈ value · scale of its output channel."""

    values: npt.NDArray[np.int8]
    scales: Float32


def convolution_names(model: ir.Model) -> list[str]:
    """The convolutions of a tidy graph, in order; each is called after its layer in the checkpoint."""
    return [str(node.name) for node in _convolutions(model.graph)]


def require_layers(names: Collection[str], known: Sequence[str]) -> None:
    """InputError, which names the nearest match, if one of the names is no layer of the network."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            raise InputError(
                "cannot keep this layer in float",
                got=repr(name),
                expected="a convolution of the network",
                fix=f"did you mean {near[0]}? dim-export sensitivity lists them"
                if near
                else "dim-export sensitivity lists them",
            )


def quantise(model: ir.Model, ranges: Mapping[str, float], *, keep_float: Collection[str] = ()) -> ir.Model:
    """Insert the Q/DQ nodes, in place.

    Args:
        model: what :func:`dim_export.graph.trace` returns, in float32.
        ranges: for each convolution the largest magnitude of its input that int8 must represent, positive.
        keep_float: convolutions whose weights and inputs stay as they are.

    Raises:
        InputError: a name in ``keep_float`` that is no convolution.
        CheckpointError: a weight that is not finite.
    """
    convolutions = _convolutions(model.graph)
    require_layers(keep_float, convolution_names(model))
    inserter = _Inserter(model.graph)
    for node, following in zip(convolutions, [*convolutions[1:], None], strict=True):
        if node.name in keep_float:
            continue
        inserter.quantise_weights(node)
        inserter.quantise_input(node, ranges[str(node.name)])
        relu = _only_relu(node)
        if relu is not None and following is not None:
            inserter.quantise_output(node, relu, ranges[str(following.name)])
    return model


def to_int8(weight: Float32, *, layer: str) -> Int8Weights:
    """Round weights O, I, K, K so that the largest magnitude of each output channel becomes 127.

    Raises:
        CheckpointError: a weight that is not finite.
    """
    if not np.isfinite(weight).all():
        raise CheckpointError(
            f"cannot quantise {layer}", got="a weight that is NaN or infinite", expected="finite weights"
        )
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    # A channel of zeros has no range: any scale is right.
    scales = (np.where(largest > 0, largest, 1) / LARGEST_INT8).astype(np.float32)
    return Int8Weights(np.rint(weight / scales[:, None, None, None]).astype(np.int8), scales)


class _Inserter:
    """Puts Q/DQ pairs into a graph; names them after the layer that they serve."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._zero = self._constant("int8_zero", np.zeros((), np.int8))

    def quantise_weights(self, node: ir.Node) -> None:
        weight = node.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        name = str(weight.name)
        found = to_int8(weight.const_value.numpy(), layer=str(node.name))
        del self._graph.initializers[name]
        values = self._constant(name, found.values)
        scales = self._constant(f"{name}_scale", found.scales)
        restored = _node("DequantizeLinear", [values, scales], f"{name}_dq", axis=0)
        self._graph.insert_before(node, restored)
        node.replace_input_with(1, restored.outputs[0])

    def quantise_input(self, node: ir.Node, largest: float) -> None:
        source = node.inputs[0]
        assert source is not None
        pair = self._pair(source, f"{node.name}.input", largest)
        self._graph.insert_before(node, pair)
        node.replace_input_with(0, pair[-1].outputs[0])

    def quantise_output(self, node: ir.Node, relu: ir.Node, largest: float) -> None:
        pair = self._pair(node.outputs[0], f"{node.name}.output", largest)
        self._graph.insert_after(node, pair)
        relu.replace_input_with(0, pair[-1].outputs[0])

    def _pair(self, source: ir.Value, name: str, largest: float) -> list[ir.Node]:
        scale = self._constant(f"{name}_scale", np.array(largest / LARGEST_INT8, np.float32))
        quantised = _node("QuantizeLinear", [source, scale, self._zero], f"{name}_q")
        restored = _node("DequantizeLinear", [quantised.outputs[0], scale, self._zero], f"{name}_dq")
        return [quantised, restored]

    def _constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        self._graph.initializers[name] = value
        return value


def _node(operator: str, inputs: list[ir.Value], name: str, *, axis: int | None = None) -> ir.Node:
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", operator, inputs, attributes, name=name)
    node.outputs[0].name = name
    return node


def _convolutions(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "Conv"]


def _only_relu(node: ir.Node) -> ir.Node | None:
    """The ReLU that is all that reads a convolution; None for those that write logits."""
    users = [use.node for use in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].op_type == "Relu" else None
