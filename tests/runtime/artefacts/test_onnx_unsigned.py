"""uint8 in place of ReLUs: the same numbers, and only where a graph is as the exporter writes it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dim.arrays import Float32
from dim_runtime.artefacts.onnx_unsigned import with_unsigned_values
from dim_runtime.backends.open import default_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

STEP = 0.05
"""Scale of the first pair."""


def graph(*, second: float = STEP, read_twice: bool = False, zero: int = 0) -> bytes:
    """Return an ONNX file: a pair, a ReLU, the pair of a next layer with the scale ``second``, a Neg."""
    tensors = {
        "step": np.array(STEP, np.float32),
        "second": np.array(second, np.float32),
        "zero": np.array(zero, np.int8),
    }
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("Relu", ["d"], ["r"]),
        node("QuantizeLinear", ["r", "second", "zero"], ["q2"]),
        node("DequantizeLinear", ["q2", "second", "zero"], ["d2"]),
        node("Neg", ["d2"], ["y"]),
    ]
    outputs = ["y"]
    if read_twice:
        nodes.append(node("Neg", ["d"], ["z"]))
        outputs.append("z")
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, [None])],
        [value(name, onnx.TensorProto.FLOAT, [None]) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 8
    found: bytes = model.SerializeToString()
    return found


def operators(model: bytes) -> Counter[str]:
    loaded = onnx.load_from_string(model)
    onnx.checker.check_model(loaded)
    return Counter(node.op_type for node in loaded.graph.node)


def results(model: bytes, values: Float32) -> list[Float32]:
    found: list[Float32] = onnxruntime.InferenceSession(model).run(None, {"x": values})
    return found


VALUES = np.linspace(-7, 127 * STEP, 500, dtype=np.float32)


def test_one_pair_of_uint8_replaces_both_pairs_and_the_relu() -> None:
    changed = with_unsigned_values(graph())
    assert operators(changed) == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Neg": 1}
    for before, after in zip(results(graph(), VALUES), results(changed, VALUES), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_pair_of_another_scale_stays() -> None:
    changed = with_unsigned_values(graph(second=0.07))
    assert operators(changed) == {"QuantizeLinear": 2, "DequantizeLinear": 2, "Neg": 1}
    for before, after in zip(results(graph(second=0.07), VALUES), results(changed, VALUES), strict=True):
        np.testing.assert_array_equal(before, after)


def test_values_beyond_int8_are_clipped_no_more() -> None:
    beyond = np.array([200 * STEP], np.float32)
    assert results(graph(), beyond)[0][0] == pytest.approx(-127 * STEP)
    assert results(with_unsigned_values(graph()), beyond)[0][0] == pytest.approx(-200 * STEP)


@pytest.mark.parametrize("model", [graph(read_twice=True), graph(zero=3)])
def test_other_graphs_stay_as_they_are(model: bytes) -> None:
    """Negative values that another node reads, and another zero point."""
    assert with_unsigned_values(model) == model


def test_a_float_graph_stays_as_it_is() -> None:
    model = default_model().read_bytes()
    assert with_unsigned_values(model) == model
