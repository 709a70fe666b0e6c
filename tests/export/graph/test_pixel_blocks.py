"""Convolutions that compute blocks of pixels: the same alpha to the bit, from fewer products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnxscript import ir

from dim.network import DIM
from dim_export.graph.pixel_blocks import compute_blocks, read_planes
from dim_export.graph.trace import trace
from dim_runtime.backends.open import default_model

SIDES = {1: 4, 2: 2, 4: 2, 5: 1, 16: 1}
"""Output channels: side of the block."""


def _graph(outputs: int, kernel: int) -> ir.Model:
    """Return a graph of a network's last convolution over three channels, followed by a ReLU."""
    draw = np.random.default_rng(outputs)
    weight = draw.normal(size=(outputs, 3, kernel, kernel)).astype(np.float32)
    bias = draw.normal(size=outputs).astype(np.float32)
    settings = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [kernel // 2] * 4}
    helper = onnx.helper
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], name="refiner.refine_pred", kernel_shape=[kernel] * 2, **settings
        ),
        helper.make_node("Relu", ["y"], ["z"], name="r"),
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", channels, "H", "W"])
        for name, channels in (("x", 3), ("z", outputs))
    ]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in (("w", weight), ("b", bias))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ir.from_proto(model)


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def _run(model: ir.Model, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = _session(model).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("channels", "side"), SIDES.items())
def test_blocks_compute_the_same(channels: int, side: int, kernel: int) -> None:
    whole, blocks = _graph(channels, kernel), _graph(channels, kernel)
    compute_blocks(blocks)
    x = np.random.default_rng(1).normal(size=(2, 3, 20, 28)).astype(np.float32)
    assert np.abs(_run(whole, x) - _run(blocks, x)).max() < 1e-5

    (convolution,) = [node for node in blocks.graph if node.op_type == "Conv"]
    weight = blocks.graph.initializers["w"].const_value
    assert weight is not None
    assert list(weight.shape) == [channels * side**2, 3, kernel + side - 1, kernel + side - 1]
    assert tuple(convolution.attributes["strides"].as_ints()) == (side, side)
    assert sum(node.op_type == "DepthToSpace" for node in blocks.graph) == (side > 1)


def test_other_convolutions_stay() -> None:
    model = _graph(1, 3)
    (convolution, _) = model.graph
    convolution.name = "backbone.encoder.layer1.0"
    compute_blocks(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]


@pytest.mark.parametrize(("width", "left"), [(0.0625, 4), (0.5, 5)])
def test_planes_are_read_where_channels_are_few(
    live_model: Callable[..., DIM], width: float, left: int
) -> None:
    """A width of 0.0625 has 4 channels behind the last unpooling, 0.5 has 32."""
    model = live_model(stage=1, width=width)
    whole, planes = (compute_blocks(trace(model, slicing=True)) for _ in range(2))
    read_planes(planes)
    draw = np.random.default_rng(2)
    inputs = {
        "image": draw.integers(0, 256, (2, 64, 96, 3), np.uint8),
        "trimap": draw.choice(np.array([0, 128, 255], np.uint8), (2, 64, 96)),
    }
    expected, found = _session(whole).run(None, inputs)[0], _session(planes).run(None, inputs)[0]
    assert expected.std() > 0.05
    assert np.abs(expected - found).max() < 1e-5
    unpoolings = [
        node
        for node in planes.graph
        if node.op_type == "DepthToSpace" and node.attributes["blocksize"].as_int() == 2
    ]
    assert len(unpoolings) == left
    onnx.checker.check_model(ir.to_proto(planes), full_check=True)


def test_the_embedded_model_has_blocks() -> None:
    """The decoder's last convolution has one channel, the refiner's two: alpha and trust."""
    graph = onnx.load(default_model()).graph
    spread = {node.name: node.attribute[0].i for node in graph.node if node.name.endswith(".pixels")}
    assert spread == {"backbone.decoder.deconv1.pixels": 4, "refiner.refine_pred.pixels": 2}
