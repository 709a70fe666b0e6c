"""Masks by other people's networks: a small one of rembg's layout that is written here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError, MissingExtraError
from dim_runtime.trimaps.mask_model import INPUTS, Layout, MaskModel, rembg_mask

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402


def red_model(
    path: Path,
    *,
    side: int | str = 32,
    channels: int = 3,
    kind: int = TensorProto.FLOAT,
    scale: float = 0.1,
    offset: float = 0.5,
) -> Path:
    """Return a network whose mask is the normalised red channel, by default scaled into 0 to 1."""
    weights = np.zeros((1, channels, 1, 1), np.float32)
    weights[0, 0] = scale
    nodes = [helper.make_node("Conv", ["input", "weights", "offset"], ["mask"])]
    if kind != TensorProto.FLOAT:
        cast = helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT)
        nodes = [cast, helper.make_node("Conv", ["cast", "weights", "offset"], ["mask"])]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("input", kind, [1, channels, side, side])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights),
            helper.make_tensor("offset", TensorProto.FLOAT, (1,), [offset]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def picture() -> Any:
    """Red 200 in the middle, 50 around it: uint8 64, 96, 3."""
    image = np.full((64, 96, 3), 50, np.uint8)
    image[16:48, 24:72, 0] = 200
    return image


@pytest.mark.parametrize("side", [32, "side"])
def test_the_mask_is_the_stretched_output(tmp_path: Path, picture: Any, side: int | str) -> None:
    mask = MaskModel(red_model(tmp_path / "u2net.onnx", side=side)).mask(picture)
    assert mask.shape == (64, 96)
    assert mask.dtype == np.uint8
    assert (mask[20:44, 30:66] == 255).all()
    assert (mask[:10] == 0).all()


LAYOUTS = [
    ("u2net.onnx", None, "u2net"),
    ("silueta.onnx", None, "u2net"),
    ("BiRefNet-general.onnx", None, "u2net"),
    ("isnet-general-use.onnx", None, "isnet"),
    ("isnet-anime.onnx", None, "isnet-anime"),
    ("u2net.onnx", "isnet", "isnet"),
    ("other.onnx", "isnet-anime", "isnet-anime"),
]


@pytest.mark.parametrize(("name", "given", "layout"), LAYOUTS)
def test_the_input_is_normalised_as_rembg_does(
    tmp_path: Path, name: str, given: Layout | None, layout: Layout
) -> None:
    # Logits show the offset and the scale of the input, which stretching alone would hide.
    path = red_model(tmp_path / name, scale=4, offset=3)
    image = np.random.default_rng(0).integers(0, 200, (32, 32, 3), np.uint8)
    image[0, 0, 0], image[0, 1, 0] = 0, 199
    mask = MaskModel(path, given).mask(image)
    expected = INPUTS[layout]
    logits = 4 * (image[..., 0] / image.max() - expected.mean[0]) / expected.deviation[0] + 3
    shares = 1 / (1 + np.exp(-logits))
    stretched = (shares - shares.min()) / (shares.max() - shares.min()) * 255
    np.testing.assert_allclose(mask, np.round(stretched), atol=1)


def test_a_side_of_320_px_is_u2nets_and_others_must_be_named(tmp_path: Path) -> None:
    MaskModel(red_model(tmp_path / "own.onnx", side=320))
    MaskModel(red_model(tmp_path / "own.onnx", side="side"))
    path = red_model(tmp_path / "own.onnx", side=1024)
    with pytest.raises(InputError, match="--mask-layout isnet for ISNet"):
        MaskModel(path)
    MaskModel(path, "isnet")


def test_a_free_side_is_that_of_the_layout(tmp_path: Path) -> None:
    # Stripes of one pixel survive in an input of 1024 px, and vanish in one of 320 px.
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[:, ::2] = 200
    path = red_model(tmp_path / "own.onnx", side="side")
    stripes = MaskModel(path, "isnet").mask(image)
    assert (stripes[:, ::2] == 255).all()
    assert (stripes[:, 1::2] == 0).all()
    assert not (MaskModel(path, "u2net").mask(image)[:, 1::2] == 0).any(axis=0).all()


def test_saturated_logits_are_no_mask(tmp_path: Path, picture: Any) -> None:
    model = MaskModel(red_model(tmp_path / "u2net.onnx", offset=1000))
    with pytest.raises(InputError, match="no finite values that differ"):
        model.mask(picture)


def test_16_bits(tmp_path: Path, picture: Any) -> None:
    model = MaskModel(red_model(tmp_path / "u2net.onnx"))
    np.testing.assert_array_equal(model.mask(picture.astype(np.uint16) * 257), model.mask(picture))


def test_files_that_are_no_mask_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        MaskModel(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match="cannot open"):
        MaskModel(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="one input, float32"):
        MaskModel(red_model(tmp_path / "four.onnx", channels=4))
    with pytest.raises(InputError, match="one input, float32"):
        MaskModel(red_model(tmp_path / "bytes.onnx", kind=TensorProto.UINT8))


def test_external_weights_are_not_read(tmp_path: Path) -> None:
    path = red_model(tmp_path / "u2net.onnx")
    model = onnx.load(path)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(3, np.float32).tobytes())
    weights = model.graph.initializer[0]
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="cannot open"):
        MaskModel(path)


def test_a_flat_output_is_no_mask(tmp_path: Path) -> None:
    model = MaskModel(red_model(tmp_path / "u2net.onnx"))
    with pytest.raises(InputError, match="no finite values that differ"):
        model.mask(np.full((40, 40, 3), 7, np.uint8))


def test_rembg_by_name(monkeypatch: pytest.MonkeyPatch, picture: Any) -> None:
    calls: list[Any] = []

    def remove(image: Any, *, session: str, only_mask: bool) -> Any:
        calls.append((image.dtype, session, only_mask))
        return image[..., 0]

    fake = SimpleNamespace(new_session=lambda name: f"session {name}", remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", fake)  # type: ignore[arg-type]
    np.testing.assert_array_equal(rembg_mask(picture, "u2net"), picture[..., 0])
    assert calls == [(np.dtype(np.uint8), "session u2net", True)]


def test_rembg_errors_are_ours(monkeypatch: pytest.MonkeyPatch, picture: Any) -> None:
    def unknown(name: str) -> Any:
        raise ValueError(f"No session class found for model '{name}'")

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(new_session=unknown))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No session class"):
        rembg_mask(picture, "nonsense")
    monkeypatch.setitem(sys.modules, "rembg", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match="auto"):
        rembg_mask(picture, "u2net")


def other_model(path: Path, node: Any, shape: Any = (1, 3, 32, 32), **weights: Any) -> Path:
    """Return a network of one node, which takes "input" and gives "mask"."""
    tensors = [helper.make_tensor(name, kind, (len(of),), of) for name, (kind, of) in weights.items()]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    outputs = [helper.make_empty_tensor_value_info("mask")]
    graph = helper.make_graph([node], "other", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "shape", [(4, 3, 32, 32), (1, 3, 0, 32), (1, 3, 60000, 60000), (1, 3, 32), (1, 1, 32, 32)]
)
def test_inputs_of_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    node = helper.make_node("ReduceMean", ["input"], ["mask"], axes=[1])
    with pytest.raises(InputError, match="cannot use the mask model"):
        MaskModel(other_model(tmp_path / "u2net.onnx", node, shape))


@pytest.mark.parametrize(
    ("kind", "options", "weights", "message"),
    [
        ("IsNaN", {}, {}, "bool"),
        ("ReduceMean", {"keepdims": 0}, {}, "shape"),
        ("SequenceConstruct", {}, {}, "list"),
        ("Cast", {"to": TensorProto.STRING}, {}, "object"),
        ("Reshape", {}, {"sides": (TensorProto.INT64, [7, 7])}, "cannot run"),
        # The scores of a classifier, and a plane of another shape than the photograph's.
        ("Reshape", {}, {"sides": (TensorProto.INT64, [1, 3072])}, "one plane of the shape of its input"),
        ("Reshape", {}, {"sides": (TensorProto.INT64, [1, 1, 24, 128])}, "one plane of the shape"),
        ("Slice", {}, {"a": (TensorProto.INT64, [0]), "b": (TensorProto.INT64, [0])}, "shape"),
    ],
)
def test_outputs_that_are_no_plane_are_errors(
    tmp_path: Path, picture: Any, kind: str, options: Any, weights: Any, message: str
) -> None:
    node = helper.make_node(kind, ["input", *weights], ["mask"], **options)
    model = other_model(tmp_path / "u2net.onnx", node, **weights)
    with pytest.raises(InputError, match=message):
        MaskModel(model).mask(picture)
