"""fp16, bf16 and int8 artefacts: the same contract, close to float32, and honest about what they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from dim.arrays import UInt8
from dim.contract import ArtefactMetadata
from dim.errors import CheckpointError, InputError
from dim.network import DIM
from dim_export import cli
from dim_export.graph.trace import MattingGraph
from dim_export.int8.convert import Quantisation, kept_float
from dim_export.onnx_export import export as to_onnx
from dim_export.onnx_export.export import lower
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.images.samples import lemur

TINY = {"stage": 1, "width": 0.0625}
INTERFACE = [
    ("image", "UINT8", ["N", "H", "W", 3]),
    ("trimap", "UINT8", ["N", "H", "W"]),
    ("alpha", "FLOAT", ["N", "H", "W"]),
]


@pytest.fixture(scope="module")
def artefacts(calibration_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export the embedded network in each precision.

    Coarse rounding flips so many pools of a random network that nothing could be told from it.
    """
    folder = tmp_path_factory.mktemp("precisions")
    embedded = default_model().with_suffix(".safetensors")
    made = {name: folder / f"{name}.onnx" for name in ("fp16", "bf16", "int8")}
    to_onnx.export(embedded, made["fp16"], precision="fp16")
    to_onnx.export(embedded, made["bf16"], precision="bf16")
    to_onnx.export(embedded, made["int8"], precision="int8", quantisation=Quantisation(calibration_folder))
    return {"fp32": default_model(), **made}


@pytest.fixture(scope="module")
def calibration_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small pair; the shipped ones would take a minute here."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("pairs")
    image, trimap = _window(160, 192)
    for name, array in (("images", image[0, ..., ::-1]), ("trimaps", trimap[0])):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "one.png"), array)
    return folder


def _window(height: int, width: int) -> tuple[UInt8, UInt8]:
    """Return a part of the shipped photograph with much fur in it, as a batch of one."""
    image, trimap = lemur()
    top, left = 64, 192
    cut = np.s_[None, top : top + height, left : left + width]
    return np.ascontiguousarray(image[cut]), np.ascontiguousarray(trimap[cut])


def _onnxruntime(path: Path) -> npt.NDArray[np.float32]:
    runtime = pytest.importorskip("onnxruntime")
    image, trimap = _window(160, 192)
    found: npt.NDArray[np.float32] = runtime.InferenceSession(str(path)).run(
        None, {"image": image, "trimap": trimap}
    )[0]
    return found


def _openvino(path: Path, hint: str) -> npt.NDArray[np.float32]:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    image, trimap = _window(160, 192)
    found: npt.NDArray[np.float32] = compiled({"image": image, "trimap": trimap})[0]
    return found


def _mean_difference(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    assert a.shape == b.shape
    unknown = _window(160, 192)[1] == 128
    assert unknown.sum() > 2000
    return float(np.abs(a - b)[unknown].mean())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_inputs_and_output_are_the_same_in_every_precision(
    artefacts: dict[str, Path], precision: str
) -> None:
    model = onnx.load(artefacts[precision])
    onnx.checker.check_model(model, full_check=True)
    found = [
        (
            value.name,
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert found == INTERFACE


@pytest.mark.parametrize(("precision", "type_name"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_half_precision_graphs_are_small_and_hold_half_the_bytes(
    artefacts: dict[str, Path], precision: str, type_name: str
) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(artefacts[precision])).graph
    # 839 in fp32: two thirds are nine steps of propagation, 64 colour cues, 22 adjusted colours, and here a
    # few casts more: 855.
    assert len(graph.node) <= 860
    types = {
        value.name: onnx.TensorProto.DataType.Name(value.data_type)
        for value in graph.initializer
        if value.name.endswith((".weight", ".bias"))
    }
    assert set(types.values()) == {type_name}
    *_, last = [node for node in graph.node if node.op_type == "Sigmoid"]
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert kinds[last.input[0]] == onnx.TensorProto.FLOAT, "the last sigmoid computes in float32"
    assert artefacts[precision].stat().st_size < 0.6 * artefacts["fp32"].stat().st_size


def test_fp16_is_close_to_fp32(artefacts: dict[str, Path]) -> None:
    reference = _onnxruntime(artefacts["fp32"])
    assert reference[_window(160, 192)[1] == 128].std() > 0.02
    assert 0 < _mean_difference(_onnxruntime(artefacts["fp16"]), reference) < 0.005


def test_bf16_is_close_to_fp32(artefacts: dict[str, Path]) -> None:
    reference = _openvino(artefacts["fp32"], "f32")
    assert 0 < _mean_difference(_openvino(artefacts["bf16"], "bf16"), reference) < 0.01


def test_int8_is_close_to_fp32(artefacts: dict[str, Path]) -> None:
    reference = _onnxruntime(default_model())
    assert 0 < _mean_difference(_onnxruntime(artefacts["int8"]), reference) < 0.01
    assert 0 < _mean_difference(_openvino(artefacts["int8"], "f32"), reference) < 0.01


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_tensorrt_rtx_parses(artefacts: dict[str, Path], precision: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(artefacts[precision].read_bytes()), [
        str(parser.get_error(place)) for place in range(parser.num_errors)
    ]


def test_a_refiner_ends_in_float32(live_model: Callable[..., DIM]) -> None:
    graph = MattingGraph(live_model(stage=3, width=0.0625), torch.bfloat16)
    assert graph.network.refiner.refine_pred.weight.dtype == torch.bfloat16
    alpha = graph(*map(torch.from_numpy, _window(64, 64)))
    assert alpha.dtype == torch.float32
    # bfloat16 has 256 values between 1/2 and 1/4 at most; float32 has many more.
    assert len(alpha.unique()) > 600


def test_metadata_says_how_the_file_was_made(artefacts: dict[str, Path], calibration_folder: Path) -> None:
    found = {name: read_metadata(path) for name, path in artefacts.items()}
    assert {name: data.precision for name, data in found.items()} == {name: name for name in artefacts}
    assert "onnxruntime" not in found["bf16"].oldest_readers
    assert found["fp16"].quantisation is None
    about = found["int8"].quantisation
    assert about is not None
    assert about.windows == 1
    assert about.calibration == calibration_folder.name
    assert about.keep_float == kept_float(found["int8"].network)


def test_documents_of_older_files_are_still_read(artefacts: dict[str, Path]) -> None:
    document = json.loads(read_metadata(artefacts["fp32"]).to_json())
    del document["quantisation"]
    assert ArtefactMetadata.from_json(json.dumps(document), source="old").quantisation is None


def test_options_of_int8_are_refused_elsewhere(live_model: Callable[..., DIM]) -> None:
    with pytest.raises(InputError, match="int8 only"):
        lower(live_model(**TINY), "fp16", quantisation=Quantisation())


def test_an_unknown_layer_is_told_before_anything_runs(
    live_model: Callable[..., DIM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dim_export.int8.convert.trace", lambda *_, **__: pytest.fail("traced"))
    options = Quantisation(keep_float=("backbone.encoder.layer1",))
    with pytest.raises(InputError, match=r"did you mean backbone\.encoder\.layer1\.\d"):
        lower(live_model(**TINY), "int8", quantisation=options)


def test_layers_that_read_alpha_or_write_logits_stay_in_float(live_model: Callable[..., DIM]) -> None:
    backbone = ("backbone.decoder.deconv1",)
    refiner = ("refiner.refine_conv1", "refiner.refine_pred")
    assert kept_float(live_model(stage=1, width=0.0625).config) == backbone
    assert kept_float(live_model(stage=3, width=0.0625).config) == (*backbone, *refiner)


@pytest.mark.parametrize("what", ["weight", "activation"])
def test_fp16_refuses_what_it_cannot_hold(live_model: Callable[..., DIM], what: str) -> None:
    model = live_model(stage=1, width=0.0625)
    layer = model.backbone.encoder.layer1[0]
    with torch.no_grad():
        if what == "weight":
            layer.weight[0, 0, 0, 0] = 1e5
        else:
            layer.weight *= 6e4 / float(layer.weight.abs().max())
    with pytest.raises(CheckpointError, match=r"fp16[\s\S]*bf16") as caught:
        lower(model, "fp16")
    assert ("layer1.0.weight" in str(caught.value)) == (what == "weight")


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dim-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_command_passes_its_options_on_and_records_itself(
    live_checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def export(source: Path, target: Path, **options: Any) -> ArtefactMetadata:
        given.update(options)
        target.touch()
        return read_metadata(default_model())

    monkeypatch.setattr("dim_export.onnx_export.export.export", export)
    options: list[Any] = ["--precision", "int8", "--calibration", calibration_folder, "--no-verify"]
    options += ["--calibration-method", "minmax", "--keep-float", "none"]
    assert _run(monkeypatch, "onnx", live_checkpoint, "-o", tmp_path / "q.onnx", *options) == 0
    assert given["command"] == (
        "dim-export onnx live.safetensors -o q.onnx --precision int8 "
        f"--calibration {calibration_folder.name} --calibration-method minmax --keep-float none"
    )
    assert given["precision"] == "int8"
    assert given["quantisation"][:3] == (calibration_folder, "minmax", ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibration", "x"], "--calibration with --precision fp32"),
        (["--precision", "bf16", "--keep-float", "x"], "--keep-float with --precision bf16"),
        (["--precision", "int4"], "'fp32', 'fp16', 'bf16', 'int8'"),
        (["--precision", "int8", "--calibration-method", "x"], "'minmax', 'percentile', 'mse'"),
        (["--precision", "int8", "--calibration", "absent"], "no such folder"),
    ],
)
def test_flags_that_do_not_apply_are_refused(
    live_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert _run(monkeypatch, "onnx", live_checkpoint, "-o", tmp_path / "x.onnx", "--no-verify", *options) == 2
    # Typer breaks its lines inside a box.
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in printed
    assert not list(tmp_path.iterdir())


def test_bench_compares_artefacts(
    artefacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "bench.json"
    paths = [artefacts["fp32"], artefacts["int8"]]
    assert _run(monkeypatch, "bench", *paths, "--size", 64, "--pairs", 2, "--report", report) == 0
    first, second = json.loads(report.read_text())["engines"]
    assert (first["precision"], second["precision"]) == ("fp32", "int8")
    assert first["speedup"] == 1
    ratios = [a / b for a, b in zip(first["seconds"], second["seconds"], strict=True)]
    assert second["speedup"] == pytest.approx(np.median(ratios))
