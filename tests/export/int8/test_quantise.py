"""Q/DQ nodes: where they stand, what the integers are, what stays in float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnxscript import ir

from dim.errors import CheckpointError, InputError
from dim.network import DIM
from dim_export.graph.trace import trace
from dim_export.int8.quantise import convolution_names, quantise, require_layers, to_int8

FIRST, SECOND = "backbone.encoder.layer1.0", "backbone.encoder.layer1.2"
LAST = "backbone.decoder.deconv1"
POOLED = [f"backbone.encoder.layer{place}" for place in ("1.2", "2.2", "3.4", "4.4", "5.4")]


@pytest.fixture(scope="module")
def traced(live_model: Callable[..., DIM]) -> onnx.ModelProto:
    return ir.to_proto(trace(live_model(stage=1, width=0.0625)))


class Quantised:
    """A quantised graph, and who makes and reads each value."""

    def __init__(self, traced: onnx.ModelProto, *keep_float: str) -> None:
        model = ir.from_proto(traced)
        self.names = convolution_names(model)
        self.ranges = {name: 1.0 + place for place, name in enumerate(self.names)}
        self.proto = ir.to_proto(quantise(model, self.ranges, keep_float=keep_float))
        graph = self.proto.graph
        self.producers = {output: node for node in graph.node for output in node.output}
        self.arrays = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
        self.convolutions = {node.name: node for node in graph.node if node.op_type == "Conv"}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def input_scale(self, layer: str) -> float | None:
        producer = self.producers[self.convolutions[layer].input[0]]
        if producer.op_type != "DequantizeLinear":
            return None
        assert self.producers[producer.input[0]].op_type == "QuantizeLinear"
        return float(self.arrays[producer.input[1]])


@pytest.fixture(scope="module")
def quantised(traced: onnx.ModelProto) -> Quantised:
    return Quantised(traced, FIRST)


def test_the_graph_is_valid_and_small(quantised: Quantised, traced: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantised.proto, full_check=True)
    added = len(quantised.proto.graph.node) - len(traced.graph.node)
    convolutions = len(quantised.names) - 1
    # Weights, input, output; the last convolution has no ReLU behind it. Pools got a sum for their ReLU.
    assert added == 5 * convolutions - 2
    names = [node.name for node in quantised.proto.graph.node]
    assert len(set(names)) == len(names)


def test_everything_is_symmetric_int8_without_an_integer_bias(quantised: Quantised) -> None:
    for node in quantised.proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) == 3:
            assert quantised.arrays[node.input[2]].dtype == np.int8
            assert quantised.arrays[node.input[2]] == 0
    for node in quantised.convolutions.values():
        assert quantised.arrays[node.input[2]].dtype == np.float32


def test_weights_are_int8_per_output_channel(quantised: Quantised, traced: onnx.ModelProto) -> None:
    float_weights = {value.name: onnx.numpy_helper.to_array(value) for value in traced.graph.initializer}
    for name, node in quantised.convolutions.items():
        if name == FIRST:
            assert node.input[1] == f"{FIRST}.weight"
            continue
        restored = quantised.producers[node.input[1]]
        values, scales = (quantised.arrays[key] for key in restored.input)
        weight = float_weights[f"{name}.weight"]
        assert restored.attribute[0].i == 0
        assert values.dtype == np.int8
        assert np.abs(values).reshape(len(values), -1).max(1).tolist() == [127] * len(values)
        error = np.abs(values * scales[:, None, None, None] - weight)
        assert (error <= scales[:, None, None, None] / 2 * 1.0001).all()


def test_an_input_has_the_scale_of_its_range(quantised: Quantised) -> None:
    assert quantised.input_scale(FIRST) is None
    for name in quantised.names[1:]:
        assert quantised.input_scale(name) == pytest.approx(quantised.ranges[name] / 127)


def test_an_output_is_quantised_before_its_relu_with_the_next_input_s_scale(quantised: Quantised) -> None:
    for name, following in zip(quantised.names[1:-1], quantised.names[2:], strict=True):
        if name in POOLED:
            continue
        (quantise_node,) = quantised.users[quantised.convolutions[name].output[0]]
        assert quantise_node.op_type == "QuantizeLinear"
        assert float(quantised.arrays[quantise_node.input[1]]) == quantised.input_scale(following)
        (restored,) = quantised.users[quantise_node.output[0]]
        (relu,) = quantised.users[restored.output[0]]
        assert relu.op_type == "Relu"


def test_an_output_that_is_pooled_has_all_256_steps(quantised: Quantised, traced: onnx.ModelProto) -> None:
    biases = {value.name: onnx.numpy_helper.to_array(value) for value in traced.graph.initializer}
    for name in POOLED:
        following = quantised.names[quantised.names.index(name) + 1]
        (quantise_node,) = quantised.users[quantised.convolutions[name].output[0]]
        step = float(quantised.arrays[quantise_node.input[1]])
        assert step == pytest.approx(quantised.input_scale(following) / 2)
        (restored,) = quantised.users[quantise_node.output[0]]
        # One reader, or ONNX Runtime does not compute in integers; and no ReLU.
        (raised,) = quantised.users[restored.output[0]]
        assert raised.op_type == "Add"
        assert raised.input[1] == f"{name}.lowered_by"
        assert {node.op_type for node in quantised.users[raised.output[0]]} <= {"SpaceToDepth", "Slice"}
        height = quantised.arrays[f"{name}.lowered_by"]
        assert height == np.float32(128 * step), "the lowest integer is 0"
        lowered = quantised.arrays[f"{name}.bias"]
        assert lowered == pytest.approx(biases[f"{name}.bias"] - height)


def test_what_is_pooled_is_raised_to_where_it_was(traced: onnx.ModelProto) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = ir.from_proto(traced)
    pooled = POOLED[0]
    others = [name for name in convolution_names(model) if name != pooled]
    ranges = dict.fromkeys([pooled, *others], 4.0)
    proto = ir.to_proto(quantise(model, ranges, keep_float=others))
    name = f"{pooled}.raised"
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    inputs = {"image": draw.integers(0, 256, (1, 64, 64, 3), np.uint8)}
    (found,) = session.run([name], inputs | {"trimap": np.full((1, 64, 64), 128, np.uint8)})
    steps = found / (2 / 127)
    assert steps.min() == 0
    assert steps.max() <= 255
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert len(np.unique(np.rint(steps))) > 100


def test_logits_and_what_is_kept_stay_in_float(quantised: Quantised, traced: onnx.ModelProto) -> None:
    (after_last,) = quantised.users[quantised.convolutions[LAST].output[0]]
    assert after_last.op_type == "Sigmoid"
    (after_first,) = quantised.users[quantised.convolutions[FIRST].output[0]]
    assert after_first.op_type == "Relu"
    untouched = Quantised(traced, *quantised.names)
    assert len(untouched.proto.graph.node) == len(traced.graph.node)


def test_onnx_runtime_runs_integer_convolutions(quantised: Quantised, tmp_path: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    runtime.InferenceSession(quantised.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    # All but the first, which is kept, and the last, which writes logits.
    assert operators.count("QLinearConv") == len(quantised.names) - 2


def test_rounding_to_int8() -> None:
    weight = np.array([[1.27, -0.635], [0, 0], [-2.54, 0.03]], np.float32).reshape(3, 2, 1, 1)
    values, scales = to_int8(weight, layer="x")
    assert values.reshape(3, 2).tolist() == [[127, -64], [0, 0], [-127, 2]]
    assert scales == pytest.approx([0.01, 1 / 127, 0.02])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    with pytest.raises(CheckpointError, match="cannot quantise conv6"):
        to_int8(np.full((1, 1, 1, 1), value, np.float32), layer="conv6")


def test_a_mistyped_layer_is_told_its_nearest_match(traced: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match=r"did you mean backbone\.decoder\.deconv5_1"):
        Quantised(traced, "decoder.deconv5")
    with pytest.raises(InputError, match="dim-export sensitivity"):
        require_layers(["?"], ["a"])
