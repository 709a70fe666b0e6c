"""Unpooling in integers: every unpooling of an int8 graph, the same alpha, and no change to other graphs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim.arrays import Float32, UInt8
from dim.images.files import write_image
from dim_runtime.artefacts.onnx_cut import read_parts
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.artefacts.onnx_unsigned import with_unsigned_values
from dim_runtime.backends.open import default_model
from dim_runtime.backends.openvino import OpenVinoBackend
from dim_runtime.backends.openvino_graph import process_core
from dim_runtime.backends.openvino_unpooling import unpool_integers
from dim_runtime.images.samples import lemur

pytest.importorskip("openvino")

UNPOOLINGS = 5
"""Of the network."""


def calibration_pair() -> tuple[UInt8, UInt8]:
    """Return an image and a trimap, all of it unknown."""
    return np.ascontiguousarray(lemur()[0][:128, :128]), np.full((128, 128), 128, np.uint8)


@pytest.fixture(scope="module")
def int8(live_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    from dim_export.int8.convert import Quantisation
    from dim_export.onnx_export.export import export

    folder = tmp_path_factory.mktemp("int8")
    for name, array in zip(("images", "trimaps"), calibration_pair(), strict=True):
        (folder / name).mkdir()
        write_image(folder / name / "a.png", array)
    options = Quantisation(folder, method="minmax")
    export(live_checkpoint, folder / "int8.onnx", precision="int8", quantisation=options)
    return folder / "int8.onnx"


def network(path: Path, *, unsigned: bool = True) -> Any:
    """Return the network's part as OpenVINO reads it."""
    graph = read_parts(path, read_metadata(path)).network
    assert isinstance(graph, bytes)
    return process_core().read_model(with_unsigned_values(graph) if unsigned else graph)


def operators(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ops())


def test_each_unpooling_computes_integers(int8: Path) -> None:
    model = network(int8)
    before = operators(model)
    assert unpool_integers(model) == UNPOOLINGS
    assert before["FakeQuantize"] - operators(model)["FakeQuantize"] == UNPOOLINGS
    joined = [node for node in model.get_ops() if node.get_friendly_name().startswith("Concat")]
    types = Counter(node.get_element_type().get_type_name() for node in joined)
    assert types["u8"] == UNPOOLINGS, types


def test_it_happens_once(int8: Path) -> None:
    model = network(int8)
    unpool_integers(model)
    assert unpool_integers(model) == 0


def test_a_backend_computes_integers(int8: Path) -> None:
    opened = OpenVinoBackend(int8, threads=1)
    assert unpool_integers(opened._model) == 0
    image, trimap = (array[None] for array in calibration_pair())
    assert opened.run(image, trimap).std() > 0.01


def test_signed_values_are_left_alone(int8: Path) -> None:
    """Behind a ReLU in float there are no integers to unpool."""
    model = network(int8, unsigned=False)
    before = operators(model)
    assert unpool_integers(model) == 0
    assert operators(model) == before


def test_a_float_graph_is_left_alone() -> None:
    model = network(default_model())
    before = operators(model)
    assert unpool_integers(model) == 0
    assert operators(model) == before


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_the_integers_are_those_of_numpy(joined: bool, fixed: bool) -> None:
    """Values 0 to 100 in steps of 0.05, unpooled; then sums of 3 × 3 pixels, exact in int8."""
    draw = np.random.default_rng(0)
    values = (draw.integers(0, 101, (1, 4, 8, 12)) * STEP).astype(np.float32)
    switches = draw.integers(0, 2, (3, 1, 4, 8, 12)).astype(bool)
    model = process_core().read_model(unpooling(joined=joined))
    if fixed:
        model.reshape({"x": list(values.shape), "s": list(switches.shape)})
    assert unpool_integers(model) == 1
    compiled = process_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"x": values, "s": switches})[0]
    np.testing.assert_allclose(found, sums(planes(values, switches), joined=joined), rtol=0, atol=1e-4)


STEP = 0.05


def unpooling(*, joined: bool) -> bytes:
    """Return an ONNX file: quantised values, switches, four planes, a second quantisation, a convolution."""
    onnx = pytest.importorskip("onnx")
    node, tensor = onnx.helper.make_node, onnx.numpy_helper.from_array
    channels = 4 if joined else 16
    constants = {
        "step": np.array(STEP, np.float32),
        "unsigned": np.zeros((), np.uint8),
        "signed": np.zeros((), np.int8),
        "weights": np.ones((1, channels, 3, 3), np.int8),
        "one": np.ones(1, np.float32),
    }
    nodes = [
        node("QuantizeLinear", ["x", "step", "unsigned"], ["q"]),
        node("DequantizeLinear", ["q", "step", "unsigned"], ["d"]),
        node("Split", ["s"], ["s0", "s1", "s2"], axis=0, num_outputs=3),
        *(node("Squeeze", [f"s{k}", "first"], [f"t{k}"]) for k in range(3)),
        *(node("Cast", [f"t{k}"], [f"c{k}"], to=onnx.TensorProto.FLOAT) for k in range(3)),
        node("Mul", ["c0", "d"], ["upper"]),
        node("Sub", ["d", "upper"], ["lower"]),
        node("Mul", ["c1", "upper"], ["p0"]),
        node("Sub", ["upper", "p0"], ["p1"]),
        node("Mul", ["c2", "lower"], ["p2"]),
        node("Sub", ["lower", "p2"], ["p3"]),
        node("Concat", ["p0", "p1", "p2", "p3"], ["planes"], axis=1),
        node("DepthToSpace", ["planes"], ["image"], blocksize=2, mode="DCR"),
        node("QuantizeLinear", ["image" if joined else "planes", "step", "signed"], ["q2"]),
        node("DequantizeLinear", ["q2", "step", "signed"], ["d2"]),
        node("DequantizeLinear", ["weights", "one"], ["w"], axis=0),
        node("Conv", ["d2", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    constants["first"] = np.zeros(1, np.int64)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [each for each in nodes if joined or each.op_type != "DepthToSpace"],
        "unpooling",
        [
            value("x", onnx.TensorProto.FLOAT, [None, 4, None, None]),
            value("s", onnx.TensorProto.BOOL, [3, None, 4, None, None]),
        ],
        [value("y", onnx.TensorProto.FLOAT, [None, 1, None, None])],
        [tensor(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 8
    found: bytes = model.SerializeToString()
    return found


def planes(values: Float32, switches: npt.NDArray[np.bool_]) -> Float32:
    upper, lower = values * switches[0], values * ~switches[0]
    parts = upper * switches[1], upper * ~switches[1], lower * switches[2], lower * ~switches[2]
    return np.concatenate(parts, 1)


def sums(planes: Float32, *, joined: bool) -> Float32:
    """Return the sums over 3 × 3 pixels and all channels, zeros around the image."""
    if joined:
        count, channels, height, width = planes.shape
        blocks = planes.reshape(count, 2, 2, channels // 4, height, width)
        planes = blocks.transpose(0, 3, 4, 1, 5, 2).reshape(count, channels // 4, 2 * height, 2 * width)
    total = np.pad(planes.sum(1, keepdims=True), ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = planes.shape[2:]
    shifted = (total[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3))
    return sum(shifted, np.zeros((1, 1, height, width), np.float32))
