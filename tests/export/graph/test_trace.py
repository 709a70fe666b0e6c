"""The exported graph: its size, its operators, its shapes, and that it computes what PyTorch computes."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnxscript import ir

from dim import checkpoint
from dim.arrays import UInt8
from dim.contract import STRIDE, NetworkConfig
from dim.contract.layers import LEVELS
from dim.errors import InputError
from dim.network import DIM, normalise
from dim_export.graph.onnx_file import describe, write
from dim_export.graph.trace import MattingGraph, trace
from dim_export.onnx_export.export import export
from dim_runtime.backends.open import default_model

SHAPE_ARITHMETIC = {
    "Shape",
    "Gather",
    "Range",
    "Reshape",
    "Expand",
    "ConstantOfShape",
    "Constant",
    "Identity",
    "Pad",
}
UNSUPPORTED = {"MaxPool", "MaxUnpool", "ScatterElements", "ScatterND", "Loop", "If"}
POOL_AND_UNPOOL = {
    "SpaceToDepth": 1, "Split": 2, "Max": 4, "GreaterOrEqual": 3, "Cast": 4, "Mul": 3, "Add": 3, "Concat": 1,
    "Resize": 2, "DepthToSpace": 1, "Equal": 1,
    "Slice": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def graph(live_artefact: Path) -> Any:
    model = onnx.load(live_artefact)
    onnx.checker.check_model(model, full_check=True)
    return model.graph


@pytest.fixture(scope="module")
def session(live_artefact: Path) -> Any:
    return onnxruntime.InferenceSession(str(live_artefact))


def _pair(shape: tuple[int, int, int], seed: int = 0) -> tuple[UInt8, UInt8]:
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return image, draw.choice(np.array([0, 128, 255], np.uint8), shape)


def _run(session: Any, image: UInt8, trimap: UInt8) -> npt.NDArray[np.float32]:
    alpha: npt.NDArray[np.float32] = session.run(["alpha"], {"image": image, "trimap": trimap})[0]
    return alpha


def test_at_most_215_nodes_without_shape_arithmetic(graph: Any) -> None:
    operators = [node.op_type for node in graph.node]
    assert len(operators) <= 215
    assert not SHAPE_ARITHMETIC & set(operators)
    assert not UNSUPPORTED & set(operators)
    assert all(node.domain == "" for node in graph.node)


def test_each_pool_and_its_unpool_take_28_nodes(graph: Any) -> None:
    assert sum(POOL_AND_UNPOOL.values()) == 28
    for operator, count in POOL_AND_UNPOOL.items():
        # Casts of the inputs, the addition of logits, two concatenations (network input, refiner input)
        # the crops of image and trimap, the bound of the sides, and the colours of the refiner's input belong
        # to no pool.
        # Two convolutions compute blocks of pixels, which DepthToSpace and Slice spread.
        others = {"Cast": 2, "Add": 1, "Concat": 2, "Slice": 6, "DepthToSpace": 2}.get(operator, 0)
        assert sum(node.op_type == operator for node in graph.node) == 5 * count + others, operator


def test_known_pixels_are_found_without_equality_and_before_any_division() -> None:
    graph = onnx.load(default_model()).graph
    producers = {name: node for node in graph.node for name in node.output}
    # Only places of maxima are compared for equality: small whole numbers, exact in every format.
    equal = [node for node in graph.node if node.op_type == "Equal"]
    assert [producers[node.input[0]].op_type for node in equal] == ["Resize"] * LEVELS
    comparisons = [node for node in graph.node if node.op_type in ("Less", "Greater")]
    assert len(comparisons) == 2
    for node in comparisons:
        before, source = set(), node.input[0]
        while source in producers:
            before.add(producers[source].op_type)
            source = producers[source].input[0]
        assert source == "trimap"
        assert before <= {"Cast", "Unsqueeze", "Slice"}


def test_no_node_has_more_than_four_outputs() -> None:
    assert max(len(node.output) for node in onnx.load(default_model()).graph.node) == 4


def test_batch_norm_is_folded(graph: Any) -> None:
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)
    assert not any("bn" in value.name or "running" in value.name for value in graph.initializer)


def test_names_are_the_checkpoint_s(graph: Any) -> None:
    names = {value.name for value in graph.initializer}
    config = NetworkConfig(stage=3, width=0.125)
    assert set(DIM(config).state_dict()) <= names
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    assert convolutions[0] == "backbone.encoder.layer1.0"
    assert convolutions[-1] == "refiner.refine_pred"
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_the_exporter_s_notes_are_gone(graph: Any, live_artefact: Path) -> None:
    assert not graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in graph.node)
    weights = sum(len(value.raw_data) for value in graph.initializer)
    assert live_artefact.stat().st_size - weights < 30_000
    assert str(Path.home()).encode() not in live_artefact.read_bytes()


def test_inputs_and_output_follow_the_contract(session: Any) -> None:
    found = [(v.name, v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())]
    assert found == [
        ("image", "tensor(uint8)", ["N", "H", "W", 3]),
        ("trimap", "tensor(uint8)", ["N", "H", "W"]),
        ("alpha", "tensor(float)", ["N", "H", "W"]),
    ]


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 64, 160), (3, 96, 32), (1, 192, 224)])
def test_every_shape_gives_what_pytorch_gives(
    session: Any, live_model: Any, shape: tuple[int, int, int]
) -> None:
    image, trimap = _pair(shape)
    alpha = _run(session, image, trimap)
    with torch.no_grad():
        expected = MattingGraph(live_model(batch_norm=True))(
            torch.from_numpy(image), torch.from_numpy(trimap)
        )
    assert alpha.shape == shape
    assert alpha[trimap == 128].std() > 0.02
    assert np.abs(alpha - expected.numpy()).max() < 2e-5


Exported = tuple[DIM, Path]


def _exported(model: DIM, folder: Path) -> Exported:
    checkpoint.save(model, folder / "network.safetensors")
    export(folder / "network.safetensors", folder / "network.onnx")
    return model, folder / "network.onnx"


@pytest.fixture(scope="module")
def with_cues(live_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _exported(live_model(batch_norm=True, cue_radii=(4, 16)), tmp_path_factory.mktemp("cues"))


@pytest.fixture(scope="module")
def propagating(live_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = live_model(batch_norm=True, propagation_steps=(2, 3))
    return _exported(model, tmp_path_factory.mktemp("propagating"))


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 96, 64)])
def test_colour_cues_too(with_cues: Exported, shape: tuple[int, int, int]) -> None:
    model, path = with_cues
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("AveragePool") == 2 * 3
    assert not SHAPE_ARITHMETIC & set(operators)
    image, trimap = _pair(shape)
    found = _run(onnxruntime.InferenceSession(str(path)), image, trimap)
    tensors = torch.from_numpy(image), torch.from_numpy(trimap)
    with torch.no_grad():
        expected = MattingGraph(model)(*tensors).numpy()
        blind = MattingGraph(_without_cues(model))(*tensors).numpy()
    assert np.abs(found - expected).max() < 2e-5
    assert np.abs(found - blind).max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 96, 64)])
def test_propagation_too(propagating: Exported, shape: tuple[int, int, int]) -> None:
    model, path = propagating
    operators = [node.op_type for node in onnx.load(path).graph.node]
    # Each level: two to make its cells, one for its windows, two to enlarge; two more in each regression.
    assert operators.count("AveragePool") == 2 * (2 + 1 + 2) + 2 * (1 + 2 + 3)
    # Another would make OpenVINO compute all of it in bfloat16. These are the unpoolings'.
    assert operators.count("Resize") == 2 * LEVELS
    # Gather repeats planes, which enlarges: once for each level.
    assert SHAPE_ARITHMETIC & set(operators) == {"Gather"}
    assert operators.count("Gather") == 2
    image, trimap = _pair(shape)
    found = _run(onnxruntime.InferenceSession(str(path)), image, trimap)
    tensors = torch.from_numpy(image), torch.from_numpy(trimap)
    with torch.no_grad():
        expected = MattingGraph(model)(*tensors).numpy()
    assert np.abs(found - expected).max() < 1e-3
    assert found[trimap == 128].std() > 0.02


@pytest.mark.parametrize("hardened", [False, True])
def test_propagation_along_light_too(live_model: Any, tmp_path: Path, hardened: bool) -> None:
    steps = {"batch_norm": True, "propagation_steps": (2, 3)}
    model, path = _exported(live_model(**steps, propagates_light=True, hardens_ends=hardened), tmp_path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Sqrt") == 1
    assert ("Min" in operators) == hardened
    image, trimap = _pair((2, 96, 64))
    found = _run(onnxruntime.InferenceSession(str(path)), image, trimap)
    tensors = torch.from_numpy(image), torch.from_numpy(trimap)
    with torch.no_grad():
        expected = MattingGraph(model)(*tensors).numpy()
        along_colours = MattingGraph(live_model(**steps))(*tensors).numpy()
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - along_colours).max() > 1e-2


@pytest.mark.parametrize("network", [{"stage": 1}, {"cue_radii": (4,), "propagation_steps": (2,)}])
@pytest.mark.parametrize(
    ("adjustments", "roots", "means"),
    [
        ({"lifts_shadows": True}, 3, 0),
        ({"sharpens": True}, 0, 1),
        ({"lifts_shadows": True, "sharpens": True}, 3, 1),
    ],
)
def test_adjusted_colours_too(
    live_model: Any,
    tmp_path: Path,
    network: dict[str, Any],
    adjustments: dict[str, bool],
    roots: int,
    means: int,
) -> None:
    model, path = _exported(live_model(batch_norm=True, **network, **adjustments), tmp_path)
    nodes = onnx.load(path).graph.node
    operators = [node.op_type for node in nodes]
    # Three square roots in place of a power; encoder and refiner read the same colours.
    assert operators.count("Sqrt") == roots
    assert "Pow" not in operators
    pools = [node for node in nodes if node.op_type == "AveragePool"]
    sides = [list(a.ints) for node in pools for a in node.attribute if a.name == "kernel_shape"]
    assert sides.count([9, 9]) == means
    image, trimap = _pair((2, 96, 64))
    found = _run(onnxruntime.InferenceSession(str(path)), image, trimap)
    tensors = torch.from_numpy(image), torch.from_numpy(trimap)
    with torch.no_grad():
        expected = MattingGraph(model)(*tensors).numpy()
        # The artefact computes what the network itself does, not only what the traced module does.
        padded = normalise(tensors[0].permute(0, 3, 1, 2), tensors[1][:, None])
        eager = model(padded)[:, 0].numpy()
        as_they_are = MattingGraph(live_model(batch_norm=True, **network))(*tensors).numpy()
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - eager)[trimap == 128].max() < 1e-3
    assert np.abs(found - as_they_are).max() > 1e-3


def _without_cues(model: DIM) -> DIM:
    """Return the same network without an effect of its cues."""
    deaf = copy.deepcopy(model)
    assert deaf.refiner is not None
    with torch.no_grad():
        deaf.refiner.refine_conv1.weight[:, 4:] = 0
    return deaf


def test_known_pixels_are_exact(session: Any) -> None:
    image, trimap = _pair((2, 64, 64))
    alpha = _run(session, image, trimap)
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 1).all()


def test_every_other_trimap_value_is_unknown(session: Any) -> None:
    image, _ = _pair((1, 32, 32))
    trimap = np.resize(np.arange(1, 255, dtype=np.uint8), (1, 32, 32))
    alpha = _run(session, image, trimap)
    assert ((alpha > 0) & (alpha < 1)).all()


def test_a_frozen_shape(live_model: Any, tmp_path: Path) -> None:
    model = live_model(stage=1)
    path = tmp_path / "frozen.onnx"
    metadata = describe(model, checkpoint_sha256="", static_shape=(1, 64, 96))
    write(trace(model, static_shape=(1, 64, 96)), metadata, path)
    session = onnxruntime.InferenceSession(str(path))
    assert [value.shape for value in session.get_inputs()] == [[1, 64, 96, 3], [1, 64, 96]]
    assert session.get_outputs()[0].shape == [1, 64, 96]
    image, trimap = _pair((1, 64, 96))
    expected = MattingGraph(model)(torch.from_numpy(image), torch.from_numpy(trimap)).numpy()
    assert np.abs(_run(session, image, trimap) - expected).max() < 2e-5
    assert not SHAPE_ARITHMETIC & {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("shape", [(0, 64, 64), (1, 60, 64), (1, 64, 0), (1, 64, 65)])
def test_impossible_frozen_shapes(live_model: Any, shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="cannot freeze this shape") as caught:
        trace(live_model(), static_shape=shape)
    assert caught.value.fix is not None


def test_the_model_that_is_exported_stays_as_it_was(live_model: Any) -> None:
    model = live_model(stage=1, batch_norm=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pooling = model.backbone.pooling
    graph = MattingGraph(model)
    with torch.no_grad():
        graph.network.backbone.encoder.conv6.weight.zero_()
    assert model.backbone.pooling is pooling
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_sizes_are_in_no_node(live_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace with symbols in place of sizes gives the same nodes and constants."""
    model = live_model(width=0.0625, cue_radii=(4, 16), propagation_steps=(1, 1))
    free = torch.export.Dim
    height, width = (STRIDE * free(name, min=1, max=1 << 16) for name in "hw")
    sides = {0: free("N", min=1, max=1 << 16), 1: height, 2: width}
    symbols = {"image": sides, "trimap": sides}
    traced = ir.to_proto(trace(model))
    export = partial(torch.onnx.export, dynamic_shapes=symbols)
    monkeypatch.setattr(torch.onnx, "export", export)
    assert ir.to_proto(trace(model)).SerializeToString() == traced.SerializeToString()
