"""Model repositories for Triton: what lies in them, read back by Triton's own protocol buffers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dim.contract import ArtefactMetadata, EngineInfo, NetworkConfig, ShapeProfile
from dim.errors import DimError, InputError, MissingExtraError
from dim_export.cli import triton
from dim_export.triton import repository as to_triton
from dim_export.triton.repository import write_repository
from dim_export.triton.serving import Options, ServedModel
from dim_runtime.artefacts.engine_file import write_engine
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import SHIPPED_MODELS, default_model
from dim_runtime.errors import ArtefactError

pytest.importorskip("tritonclient.grpc")

app = typer.Typer()
app.command("triton")(triton.triton)

MODEL = SHIPPED_MODELS[0]

PLAN = b"a plan, as TensorRT serialised it" * 100


def document(**more: Any) -> ArtefactMetadata:
    return ArtefactMetadata(
        network=NetworkConfig(stage=3, width=0.25),
        precision=more.pop("precision", "fp16"),
        context=192,
        multiply_adds_per_pixel=1,
        parameters=1,
        checkpoint_sha256="0",
        versions={},
        oldest_readers={},
        command="a test",
        **more,
    )


def engine(
    path: Path, *, builder: Any = "tensorrt", most: tuple[int, int, int] | None = (4, 1024, 1024)
) -> Path:
    """Write an engine file with a made-up plan; ``most`` None freezes the shape to 1, 512, 512."""
    profile = None if most is None else ShapeProfile(min=(1, 256, 256), opt=(1, 512, 512), max=most)
    info = EngineInfo(
        builder=builder,
        version="10.9.0",
        compute_capabilities=("8.6",),
        platform="Linux x86_64",
        profile=profile,
        precision_read_from="engine",
        source_sha256="0",
        plan_bytes=0,
        plan_sha256="",
    )
    write_engine(path, document(engine=info, static_shape=(1, 512, 512) if most is None else None), PLAN)
    return path


def onnx_file(path: Path, metadata: ArtefactMetadata) -> Path:
    """Write an ONNX file with this document and an empty graph, which is not run here."""
    onnx = pytest.importorskip("onnx")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(model, {"dim": metadata.to_json()})
    path.write_bytes(model.SerializeToString())
    return path


def parsed(repository: Path, name: str) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def tensors(config: Any) -> dict[str, tuple[str, list[int]]]:
    from tritonclient.grpc import model_config_pb2

    return {
        tensor.name: (model_config_pb2.DataType.Name(tensor.data_type), list(tensor.dims))
        for tensor in [*config.input, *config.output]
    }


def test_an_onnx_artefact_on_the_cpu(tmp_path: Path) -> None:
    from tritonclient.grpc import model_config_pb2

    (served,) = write_repository([default_model()], tmp_path / "models", Options(instances=2, threads=1))
    config = parsed(tmp_path / "models", MODEL)
    assert config.name == served.name == MODEL
    assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert tensors(config) == {
        "image": ("TYPE_UINT8", [-1, -1, 3]),
        "trimap": ("TYPE_UINT8", [-1, -1]),
        "alpha": ("TYPE_FP32", [-1, -1]),
    }
    (group,) = config.instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_CPU, 2)
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    told = ArtefactMetadata.from_json(config.parameters["dim"].string_value, source="the configuration")
    assert told.context == 320
    assert told.static_shape is None
    assert (tmp_path / f"models/{MODEL}/1/model.onnx").read_bytes() == default_model().read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_fixed_windows_get_a_model_each(tmp_path: Path) -> None:
    options = Options(windows=((704, 768), (1024, 1024)), max_batch=4, device="gpu")
    served = write_repository([default_model()], tmp_path / "models", options)
    assert [model.name for model in served] == [f"{MODEL}_704x768", f"{MODEL}_1024x1024"]
    config = parsed(tmp_path / "models", f"{MODEL}_704x768")
    assert config.max_batch_size == 4
    assert tensors(config)["image"] == ("TYPE_UINT8", [704, 768, 3])
    assert tensors(config)["alpha"] == ("TYPE_FP32", [704, 768])
    assert config.instance_group[0].kind == 1  # KIND_GPU
    told = ArtefactMetadata.from_json(config.parameters["dim"].string_value, source="the configuration")
    assert told.static_shape == (1, 704, 768)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(max_batch=1),
        Options(windows=((704, 768),)),
        Options(windows=((704, 768),), max_batch=1),
        Options(engine="openvino", windows=((704, 768),)),
    ],
)
def test_the_configuration_has_the_axes_of_the_file(tmp_path: Path, options: Options) -> None:
    pytest.importorskip("onnx")
    (served,) = write_repository([default_model()], tmp_path / "models", options)
    require_equal_axes(tmp_path / "models", served)


@pytest.mark.parametrize("shape", [(1, 672, 672), (2, 704, 768)])
def test_the_configuration_has_the_axes_of_a_frozen_file(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """As ``dim-export onnx --shape`` writes it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(default_model())
    for tensor in (*model.graph.input, *model.graph.output):
        for axis, size in enumerate(shape):
            tensor.type.tensor_type.shape.dim[axis].dim_value = size
    document = read_metadata(default_model()).model_copy(update={"static_shape": shape})
    onnx.helper.set_model_props(model, {"dim": document.to_json()})
    onnx.save(model, tmp_path / "frozen.onnx")
    (served,) = write_repository([tmp_path / "frozen.onnx"], tmp_path / "models", Options())
    require_equal_axes(tmp_path / "models", served)


def require_equal_axes(repository: Path, served: ServedModel) -> None:
    """Compare as Triton's ONNX Runtime back end does: exactly, and with the batch in front unless it is 0."""
    import onnx

    graph = onnx.load(repository / served.name / "1" / "model.onnx").graph
    batch = [-1] if served.max_batch else []
    configured = {
        name: [*batch, *axes] for name, (_, axes) in tensors(parsed(repository, served.name)).items()
    }
    assert configured == {
        tensor.name: [axis.dim_value or -1 for axis in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.input, *graph.output)
    }


def test_a_file_with_fixed_windows_computes_the_same(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = Options(windows=((672, 672),), max_batch=1)
    write_repository([default_model()], tmp_path / "models", options)
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (1, 672, 672, 3), np.uint8)
    trimap = draw.choice(np.array([0, 128, 255], np.uint8), (1, 672, 672))
    alphas = [
        runtime.InferenceSession(str(path)).run(["alpha"], {"image": image, "trimap": trimap})[0]
        for path in (default_model(), tmp_path / "models" / f"{MODEL}_672x672" / "1" / "model.onnx")
    ]
    assert np.array_equal(*alphas)


def test_windows_without_room_for_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 672 px") as caught:
        write_repository([default_model()], tmp_path / "models", Options(windows=((512, 768),)))
    assert caught.value.fix == "--windows 672,768"


def test_one_window_at_a_time_needs_no_batcher(tmp_path: Path) -> None:
    write_repository([default_model()], tmp_path / "models", Options(max_batch=1))
    config = parsed(tmp_path / "models", MODEL)
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_a_frozen_batch_is_part_of_the_shape(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "frozen.onnx", document(static_shape=(4, 256, 320)))
    (served,) = write_repository([path], tmp_path / "models", Options())
    config = parsed(tmp_path / "models", "frozen")
    assert config.max_batch_size == served.max_batch == 0
    assert not config.HasField("dynamic_batching")
    assert tensors(config)["image"] == ("TYPE_UINT8", [4, 256, 320, 3])


def test_an_engine_is_served_without_our_header(tmp_path: Path) -> None:
    path = engine(tmp_path / "dim.engine")
    (served,) = write_repository([path], tmp_path / "models", Options(windows=((512, 512),)))
    assert (served.engine, served.device, served.max_batch) == ("tensorrt", "gpu", 4)
    config = parsed(tmp_path / "models", "dim_512x512")
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert config.instance_group[0].kind == 1  # KIND_GPU
    assert tensors(config)["trimap"] == ("TYPE_UINT8", [512, 512])
    assert (tmp_path / "models/dim_512x512/1/model.plan").read_bytes() == PLAN


def test_an_engine_with_a_frozen_shape(tmp_path: Path) -> None:
    path = engine(tmp_path / "dim.engine", most=None)
    write_repository([path], tmp_path / "models", Options())
    assert tensors(parsed(tmp_path / "models", "dim"))["image"] == ("TYPE_UINT8", [1, 512, 512, 3])


def test_openvino_takes_one_fixed_window_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--windows"):
        write_repository([default_model()], tmp_path / "models", Options(engine="openvino"))
    options = Options(engine="openvino", windows=((704, 704),), threads=3)
    write_repository([default_model()], tmp_path / "models", options)
    config = parsed(tmp_path / "models", f"{MODEL}_704x704")
    assert (config.backend, config.platform) == ("openvino", "")
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 0
    assert tensors(config)["image"] == ("TYPE_UINT8", [1, 704, 704, 3])
    assert config.parameters["RESHAPE_IO_LAYERS"].string_value == "YES"
    assert config.parameters["INFERENCE_NUM_THREADS"].string_value == "3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(device="cpu"), "a GPU and TensorRT"),
        (Options(engine="onnxruntime"), "a GPU and TensorRT"),
        (Options(threads=2), "threads are an option of the CPU"),
        (Options(max_batch=5), "at most 4"),
        (Options(windows=((128, 512),)), "the engine's profile"),
        (Options(windows=((1024, 1056),)), "the engine's profile"),
    ],
)
def test_options_that_do_not_fit_an_engine(tmp_path: Path, options: Options, words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_repository([engine(tmp_path / "dim.engine")], tmp_path / "models", options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(engine="tensorrt"), "dim-export trt"),
        (Options(engine="openvino", device="gpu"), "the CPU only"),
        (Options(device="gpu", threads=2), "threads are an option of the CPU"),
        (Options(windows=((500, 512),)), "multiples of 32"),
        (Options(windows=((0, 512),)), "multiples of 32"),
        (Options(engine="openvino", windows=((512, 512),), max_batch=2), "joins no requests"),
    ],
)
def test_options_that_do_not_fit_an_onnx_file(tmp_path: Path, options: Options, words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_repository([default_model()], tmp_path / "models", options)
    assert not (tmp_path / "models").exists()


def test_what_cannot_be_served(tmp_path: Path) -> None:
    models = tmp_path / "models"
    frozen = onnx_file(tmp_path / "frozen.onnx", document(static_shape=(1, 512, 512)))
    with pytest.raises(InputError, match="frozen to"):
        write_repository([frozen], models, Options(windows=((512, 512),)))
    with pytest.raises(InputError, match="frozen to"):
        write_repository([frozen], models, Options(max_batch=2))
    with pytest.raises(InputError, match="bf16"):
        write_repository([onnx_file(tmp_path / "b.onnx", document(precision="bf16"))], models, Options())
    with pytest.raises(InputError, match="reads no other"):
        write_repository([engine(tmp_path / "rtx.engine", builder="tensorrt-rtx")], models, Options())
    with pytest.raises(InputError, match=r"\.onnx or \.engine"):
        write_repository([tmp_path / "model.pth"], models, Options())
    with pytest.raises(InputError, match="under one name"):
        write_repository([frozen, engine(tmp_path / "frozen.engine")], models, Options())
    assert not models.exists()


def test_a_damaged_engine_leaves_what_was_there(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_repository([default_model()], models, Options(max_batch=1))
    before = (models / f"{MODEL}/config.pbtxt").read_text()
    path = engine(tmp_path / "dim.engine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="damaged"):
        write_repository([default_model(), path], models, Options(max_batch=3))
    assert [folder.name for folder in models.iterdir()] == [MODEL]
    assert (models / f"{MODEL}/config.pbtxt").read_text() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dim.engine", "models"]


def test_a_repository_is_added_to_and_written_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "other").mkdir(parents=True)
    write_repository([default_model()], models, Options())
    (models / f"{MODEL}/1/stale").write_text("")
    write_repository([default_model()], models, Options(max_batch=2))
    assert sorted(folder.name for folder in models.iterdir()) == [MODEL, "other"]
    assert parsed(models, MODEL).max_batch_size == 2
    assert not (models / f"{MODEL}/1/stale").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_triton.shutil, "copyfile", fail)
    with pytest.raises(InputError, match="No space left"):
        write_repository([default_model()], tmp_path / "models", Options())
    assert not list(tmp_path.iterdir())


def test_without_the_protocol_buffers_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[serving\]"):
        write_repository([default_model()], tmp_path / "models", Options())


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command(tmp_path: Path) -> None:
    report = tmp_path / "served.json"
    output = _run(
        default_model(), "-o", tmp_path / "models", "--windows", "704,704", "--windows", "704,768",
        "--max-batch", 4, "--instances", 2, "--device", "cpu", "--report", report,
    )  # fmt: skip
    assert f"{MODEL}_704x768  onnxruntime on cpu, windows 704,768, up to 4 at once, 2 instances" in output
    found = json.loads(report.read_text())
    assert [model["window"] for model in found] == [[704, 704], [704, 768]]
    assert {model["instances"] for model in found} == {2}
    assert {folder.name for folder in (tmp_path / "models").iterdir()} == {model["name"] for model in found}


@pytest.mark.parametrize("text", ["512", "512x512", "512,512,3", "a,b", ""])
def test_windows_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(DimError, match="H,W, such as"):
        _run(default_model(), "-o", tmp_path / "models", "--windows", text)
