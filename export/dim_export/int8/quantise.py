"""Quantise an exported float32 graph to int8 by Q/DQ nodes (QuantizeLinear and DequantizeLinear).

Quantisation is symmetric, with zero point 0 and one scale for each output channel of the weights. Biases stay
in float, because TensorRT refuses integer biases. In each quantised convolution

* the weights are stored as int8 behind a DequantizeLinear;
* the input passes through QuantizeLinear and DequantizeLinear;
* so does the output, before its ReLU and with the scale of the next convolution's input, because ONNX
  Runtime runs a convolution in integers only if a QuantizeLinear follows it directly. This costs no accuracy:
  values below the range are negative, and the ReLU makes them 0. Pooling and unpooling move values and create
  no new ones, so they lie on the grid of the next convolution's input already.

Pooled outputs have steps half as wide. A pool compares values, and of equal integers it chooses the first, so
coarse steps would shift the unpooled values up and to the left. Symmetric integers waste their negative half
on values that the ReLU makes 0. Therefore the bias is lowered by half the range. 0 becomes -128, clipping at
the lowest integer replaces the ReLU, and an Add raises the pooled values again. The number of nodes is the
same, and the eighth bit is used.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnxscript import ir

from dim.arrays import Float32
from dim.errors import CheckpointError, InputError
from dim_export.graph.marks import move_uses

LARGEST_INT8 = 127
"""Largest integer. Only lowered outputs use -128, so that every other range is symmetric."""
LOWEST_INT8 = -128


class Int8Weights(NamedTuple):
    """Weights ≈ values · scales.

    Attributes:
        values: int8 O, I, K, K.
        scales: float32 O, one for each output channel.
    """

    values: npt.NDArray[np.int8]
    scales: Float32


def convolution_names(model: ir.Model) -> list[str]:
    """Return the names of a tidy graph's convolutions, in order: their layers in the checkpoint."""
    return [str(node.name) for node in _convolutions(model.graph)]


def require_layers(names: Collection[str], known: Sequence[str]) -> None:
    """Raise an InputError that proposes the nearest match, if a name is no layer of the network."""
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
        model: the result of :func:`dim_export.graph.trace.trace`, in float32.
        ranges: largest magnitude that int8 must represent at the input of each convolution; positive.
        keep_float: convolutions whose weights and inputs stay in float.

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
    # A channel of zeros has no range, so any scale is right.
    scales = (np.where(largest > 0, largest, 1) / LARGEST_INT8).astype(np.float32)
    return Int8Weights(np.rint(weight / scales[:, None, None, None]).astype(np.int8), scales)


class _Inserter:
    """Inserts Q/DQ pairs into a graph, and names them after their layer."""

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
        if _is_pooled(relu):
            self._quantise_lowered(node, relu, largest / 2)
            return
        pair = self._pair(node.outputs[0], f"{node.name}.output", largest)
        self._graph.insert_after(node, pair)
        relu.replace_input_with(0, pair[-1].outputs[0])

    def _quantise_lowered(self, node: ir.Node, relu: ir.Node, half: float) -> None:
        """Quantise a pooled output from 0 to twice ``half``, in steps half as wide as the next input's."""
        # 1. Lower the bias by 128 steps: the output 0 becomes the lowest integer.
        lowered_by = np.float32(-LOWEST_INT8 * half / LARGEST_INT8)
        self._lower_bias(node, lowered_by)
        # 2. Quantise: clipping at the lowest integer replaces the ReLU.
        pair = self._pair(node.outputs[0], f"{node.name}.output", half)
        # 3. Raise the values again with one Add before the pool. ONNX Runtime computes the convolution in
        #    integers only if a single node reads the pair.
        height = self._constant(f"{node.name}.lowered_by", np.array(lowered_by))
        raised = _node("Add", [pair[-1].outputs[0], height], f"{node.name}.raised")
        self._graph.insert_after(node, [*pair, raised])
        # 4. All readers of the ReLU now read the raised values.
        move_uses(relu.outputs[0], raised.outputs[0])
        self._graph.remove(relu, safe=True)

    def _lower_bias(self, node: ir.Node, by: np.float32) -> None:
        bias = _bias(node)
        if bias is not None:
            _replace(bias, _array(bias) - by)
            return
        # The exporter omits a bias of zeros.
        channels = len(_array(_weight_factor(node)))
        node.resize_inputs(3)
        node.replace_input_with(2, self._constant(f"{node.name}.bias", np.full(channels, -by, np.float32)))

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


def _is_pooled(relu: ir.Node) -> bool:
    """Whether a pool reads a ReLU. Its Slices have steps; those that drop margins have none."""
    readers = [use.node for use in relu.outputs[0].uses()]
    return any(
        node.op_type == "SpaceToDepth" or (node.op_type == "Slice" and len(node.inputs) > 4)
        for node in readers
    )


def _parameter(node: ir.Node, place: int) -> ir.Value:
    """Return the initialiser that a node reads."""
    value = node.inputs[place]
    assert value is not None
    assert value.const_value is not None
    return value


def _bias(node: ir.Node) -> ir.Value | None:
    return _parameter(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else None


def _weight_factor(node: ir.Node) -> ir.Value:
    """Return the initialiser that scales a convolution's weights: the weights, or their scales in int8."""
    value = node.inputs[1]
    restored = None if value is None else value.producer()
    return _parameter(node, 1) if restored is None else _parameter(restored, 1)


def _array(value: ir.Value) -> Float32:
    assert value.const_value is not None
    array: Float32 = value.const_value.numpy()
    return array


def _replace(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    value.const_value = ir.tensor(array, name=value.name)


def _only_relu(node: ir.Node) -> ir.Node | None:
    """Return the only reader of a convolution, if it is a ReLU; None for convolutions that write logits."""
    users = [use.node for use in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].op_type == "Relu" else None
