"""ONNX to engine: real builds with TensorRT-RTX, which needs no GPU; TensorRT with a fake."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dim.contract import ArtefactMetadata, EngineInfo, NetworkConfig, Precision, ShapeProfile
from dim.errors import DimError, InputError, MissingExtraError
from dim_export import cli
from dim_export.inspection import inspect
from dim_export.tensorrt import builders
from dim_export.tensorrt.build import EngineError, Workbench, build_plan
from dim_export.tensorrt.builders import BuilderError, BuildOptions, choose_builder
from dim_export.tensorrt.convert import checked_profile, convert, window_profile
from dim_export.tensorrt.layers import report_of_log, types_of_network
from dim_export.tensorrt.timing_cache import load_timings, lock, store_timings
from dim_runtime.artefacts.engine_file import read_header, read_plan
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.errors import ArtefactError

SMALL = window_profile(tile=64, batch=2)
CONVOLUTIONS = 25
"""Of the embedded network: four are the refiner's."""


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model, which needs no PyTorch and builds in about a second."""
    path = tmp_path_factory.mktemp("trt") / "tiny.onnx"
    shutil.copy(default_model(), path)
    return path


@pytest.fixture(scope="module")
def engine(rtx: Any, artefact: Path) -> Path:
    """Build an engine of it for two kinds of GPU."""
    target = artefact.with_name("deep") / "tiny.engine"
    options = BuildOptions(profile=SMALL, compute_capabilities=("8.6", "12.0"))
    convert(artefact, target, builder="tensorrt-rtx", options=options, command="dim-export trt")
    return target


def altered(path: Path, old: bytes, new: bytes) -> Path:
    """Write the artefact with other metadata of the same length."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    changed = path.with_name(f"altered-{new.hex()[-8:]}.onnx")
    changed.write_bytes(content.replace(old, new))
    return changed


def test_the_header_of_a_real_engine(engine: Path, artefact: Path, rtx: Any) -> None:
    header = read_header(engine)
    info, metadata = header.engine, header.metadata
    assert (info.builder, info.version) == ("tensorrt-rtx", rtx.__version__)
    assert info.compute_capabilities == ("8.6", "12.0")
    assert info.profile == ShapeProfile(min=(1, 32, 32), opt=(1, 64, 64), max=(2, 64, 64))
    assert (metadata.context, metadata.precision) == (320, "fp32")
    source = read_metadata(artefact)
    assert (metadata.network, metadata.checkpoint_sha256) == (source.network, source.checkpoint_sha256)
    assert metadata.command == f"{source.command}; dim-export trt"
    assert info.source_sha256 == hashlib.sha256(artefact.read_bytes()).hexdigest()
    assert read_plan(engine, header)[:4] == b"vtrt"
    assert [entry.name for entry in engine.parent.iterdir()] == ["tiny.engine"]


def test_the_precision_is_read_from_the_engine(engine: Path) -> None:
    info = read_header(engine).engine
    assert info.precision_read_from == "engine"
    assert info.convolutions == {"fp32": CONVOLUTIONS}
    assert info.layers["correlation"] == CONVOLUTIONS


def test_an_engine_in_another_precision_than_the_artefact_says(artefact: Path, rtx: Any) -> None:
    said = altered(artefact, b'"precision":"fp32"', b'"precision":"bf16"')
    target = said.with_suffix(".engine")
    with pytest.raises(EngineError, match="most convolutions in fp32") as caught:
        convert(said, target, builder="tensorrt-rtx", options=BuildOptions(profile=SMALL))
    assert caught.value.exit_code == 1
    assert not target.exists()


def frozen(artefact: Path, shape: tuple[int, int, int]) -> Path:
    """Write the artefact as ``--shape`` would have made it."""
    model = onnx.load(artefact)
    for tensor in (*model.graph.input, *model.graph.output):
        for axis, side in zip(tensor.type.tensor_type.shape.dim, shape, strict=False):
            axis.dim_value = side
    document = read_metadata(artefact).model_copy(update={"static_shape": shape})
    model.metadata_props[0].value = document.to_json()
    path = artefact.with_name("frozen.onnx")
    onnx.save(model, path)
    return path


def test_a_frozen_shape_needs_no_profile(rtx: Any, artefact: Path, tmp_path: Path) -> None:
    path = frozen(artefact, (1, 64, 96))
    metadata = convert(path, tmp_path / "frozen.engine", builder="tensorrt-rtx")
    assert metadata.engine is not None
    assert metadata.engine.profile is None
    assert metadata.engine.compute_capabilities == ()
    with pytest.raises(InputError, match=r"frozen to N, H, W = \(1, 64, 96\)"):
        convert(path, tmp_path / "frozen.engine", options=BuildOptions(profile=SMALL))


def test_every_parser_error_is_listed(rtx: Any) -> None:
    nodes = [
        helper.make_node("Foo", ["image"], ["a"], name="first"),
        helper.make_node("Bar", ["a"], ["alpha"], name="second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("image", "alpha")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    with pytest.raises(EngineError) as caught:
        build_plan(rtx, "tensorrt-rtx", model.SerializeToString(), BuildOptions())
    assert len(caught.value.errors) == 2
    for part in ("'first' (Foo)", "'second' (Bar)", "2 errors"):
        assert part in str(caught.value)


def test_a_builder_that_gives_up_says_why(rtx: Any, artefact: Path, tmp_path: Path) -> None:
    """Also right after another failure: no builder of an earlier build may keep the log."""
    for _ in range(2):
        options = BuildOptions(profile=window_profile(), workspace_bytes=1 << 20)
        with pytest.raises(EngineError, match=r"\(1\) .*Error Code \d"):
            convert(artefact, tmp_path / "no.engine", builder="tensorrt-rtx", options=options)
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_the_builder_does_not_know(rtx: Any, artefact: Path, tmp_path: Path) -> None:
    options = BuildOptions(profile=SMALL, compute_capabilities=("8.6", "9.0"))
    with pytest.raises(InputError, match=r"compute capability 9\.0\n.*7\.5, 8\.0, 8\.6"):
        convert(artefact, tmp_path / "no.engine", builder="tensorrt-rtx", options=options)


def test_a_failure_keeps_the_old_engine(artefact: Path, tmp_path: Path, rtx: Any) -> None:
    target = tmp_path / "old.engine"
    target.write_text("old")
    options = BuildOptions(profile=SMALL, compute_capabilities=("9.9",))
    with pytest.raises(InputError):
        convert(artefact, target, builder="tensorrt-rtx", options=options)
    assert target.read_text() == "old"


def test_foreign_onnx_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x3a\x00")
    with pytest.raises(ArtefactError, match="not an artefact of this toolkit"):
        convert(tmp_path / "a.onnx", tmp_path / "a.engine")


# Choosing a builder and its options


def _installed(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(builders, "find_spec", lambda name: name if name in modules else None)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__name__=name))


def test_the_only_builder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "tensorrt_rtx")
    assert choose_builder(None)[0] == "tensorrt-rtx"
    _installed(monkeypatch, "tensorrt")
    assert choose_builder(None)[0] == "tensorrt"
    with pytest.raises(MissingExtraError, match=r"dim-matting\[tensorrt-rtx\]"):
        choose_builder("tensorrt-rtx")


def test_both_or_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    with pytest.raises(BuilderError, match="neither TensorRT nor TensorRT-RTX"):
        choose_builder(None)
    _installed(monkeypatch, "tensorrt", "tensorrt_rtx")
    with pytest.raises(BuilderError, match="both are installed"):
        choose_builder(None)
    assert choose_builder("tensorrt")[1].__name__ == "tensorrt"


def test_an_installed_builder_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BuilderError, match="does not load"):
        choose_builder("tensorrt")


@pytest.mark.parametrize(
    ("option", "value", "flag"),
    [
        ("hardware_compatible", True, "--hardware-compatible"),
        ("version_compatible", True, "--version-compatible"),
        ("timing_cache", Path("cache"), "--timing-cache"),
    ],
)
def test_options_that_tensorrt_rtx_does_not_have(
    option: str, value: object, flag: str, artefact: Path, tmp_path: Path, rtx: Any
) -> None:
    options = BuildOptions(profile=SMALL, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"{flag} does not apply to TensorRT-RTX"):
        convert(artefact, tmp_path / "no.engine", builder="tensorrt-rtx", options=options)


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 32, 32), (1, 48, 64), (1, 64, 64)),
        ((0, 32, 32), (1, 64, 64), (1, 64, 64)),
        ((1, 32, 32), (2, 64, 64), (1, 64, 64)),
        ((1, 64, 64), (1, 32, 64), (1, 64, 64)),
    ],
)
def test_impossible_profiles(shapes: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError, match="cannot build an engine for th"):
        checked_profile(*shapes)


def test_the_default_profile_takes_every_window_of_the_runtime() -> None:
    profile = window_profile()
    assert all(profile.admits((1, h, w)) for h, w in ((32, 1536), (1536, 32), (832, 416)))
    assert not profile.admits((1, 1568, 32))
    assert not profile.admits((2, 32, 32))


# Reading the precision back


def _line(kind: str, *datatypes: str, names: str = "conv1", metadata: bool = True) -> str:
    inputs = ", ".join(f"{{ Name: x, Dimensions: [1,4,-1,-1], {datatype} }}" for datatype in datatypes)
    origin = "".join(f"[ONNX Layer: {name}]" for name in names.split(" + ")) if metadata else ""
    return (
        f"Name: {names}, LayerType: {kind}, Inputs: [ {inputs}], "
        "Constants: [ { Name: w, Datatype: Int8 }], Outputs: [ { Name: y, Datatype: Int8 }], "
        f"TacticName: t, StreamId: 0, Metadata: {origin}"
    )


@pytest.mark.parametrize(
    ("datatype", "precision"),
    [
        ("Datatype: Float, Format: (NHWC) Channel major format", "fp32"),
        ("Datatype: Half, Format: (NHWC) Channel major format", "fp16"),
        ("Datatype: BFloat16, Format: (NHWC) Channel major format", "bf16"),
        ("Datatype: Int8, Format: (NHWC) Channel major format", "int8"),
        ("Location: Device, Format/Datatype: Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Location: Device, Format/Datatype: Row major linear FP32", "fp32"),
        ("Location: Device, Format/Datatype: Row major linear BF16 format", "bf16"),
        ("Location: Device, Format/Datatype: Thirty-two wide channel vectorized row major Int8", "int8"),
    ],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_layers_of_both_releases_formats(metadata: bool, datatype: str, precision: str) -> None:
    lines = ["Layers:", _line("CaskConvolution", datatype, names="conv1 + Relu_0", metadata=metadata)]
    found = report_of_log(lines, ["conv1", "conv2"])
    assert found is not None
    assert (found.precision, found.kinds) == (precision, {"CaskConvolution": 1})
    assert found.read_from == "engine"


def test_most_convolutions_decide() -> None:
    types = ("Float", "Int8", "Int8", "Float", "Int8")
    lines = [_line("correlation", f"Datatype: {kind}", names=f"c{n}") for n, kind in enumerate(types)]
    lines += [_line("kgen", "Datatype: Half", names=f"Max_{n}") for n in range(9)]
    lines += ["Name: shapes_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: []"]
    found = report_of_log(lines, {f"c{n}" for n in range(5)})
    assert found is not None
    assert found.precision == "int8"
    assert found.convolutions == {"int8": 3, "fp32": 2}
    assert found.kinds == {"kgen": 9, "correlation": 5, "shape_call": 1}


def test_a_convolution_that_was_merged_or_split_counts_once() -> None:
    """The refiner's last one also has the logits, in fp32, as an input; a bias may become a layer."""
    lines = [
        _line("runtime_fusion", "Datatype: Float", "Datatype: Half", names="Sigmoid_0 + conv1"),
        _line("kgen", "Datatype: Float", names="conv1 + Relu_0"),
    ]
    found = report_of_log(lines, ["conv1"])
    assert found is not None
    assert found.convolutions == {"fp16": 1}


def test_a_log_without_convolutions() -> None:
    assert report_of_log(["some message", _line("kgen", "Datatype: Half")], ["conv2"]) is None


def test_the_network_prescribes_the_same(rtx: Any, artefact: Path) -> None:
    with Workbench(rtx, "tensorrt-rtx") as bench:
        bench.parse(artefact.read_bytes())
        found = types_of_network(rtx, bench.network)
    assert (found.convolutions, found.read_from) == ({"fp32": CONVOLUTIONS}, "network")


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dim-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return call


def test_the_command_and_inspect(
    run: Callable[..., int], artefact: Path, tmp_path: Path, rtx: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "dim.engine"
    flags = ("--builder", "tensorrt-rtx", "--compute-capability", "8.9, 8.9", "--tile", 64, "--batch", 2)
    assert run("trt", artefact, "-o", target, *flags, "--report", tmp_path / "dim.json") == 0
    printed = capsys.readouterr().out
    assert "compute capability 8.9\n" in printed
    assert f"{CONVOLUTIONS} in fp32 (read from the engine)" in printed
    header = read_header(target)
    assert header.engine.profile == SMALL
    assert header.metadata.command.endswith(
        "--tile 64 --batch 2 --builder tensorrt-rtx --compute-capability '8.9, 8.9'"
    )
    written = ArtefactMetadata.model_validate_json((tmp_path / "dim.json").read_text())
    assert written == header.metadata

    assert run("inspect", target) == 0
    printed = capsys.readouterr().out
    assert f"{CONVOLUTIONS} convolutions in fp32" in printed
    assert "on compute capability 8.9, windows from (1, 32, 32) to (2, 64, 64)" in printed
    assert run("inspect", target, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["engine"]["version"] == rtx.__version__


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--compute-capability", "86"), "such as 8.6"),
        (("--builder", "trtexec"), "'trtexec' is not"),
        (("--max", "1,64"), "N,H,W"),
        (("--tile", "100"), "multiples of 32"),
        (("--tile", "64", "--max", "1,64,64"), "both set the largest shape"),
        (("--batch", "2", "--max", "1,64,64"), "both set the largest shape"),
        (("--min", "1,64,64", "--max", "1,32,32"), "--min ≤ --opt ≤ --max"),
        (("--workspace", "much"), "amount of memory"),
        (("-o", "model.plan"), "model.engine"),
    ],
)
def test_wrong_use(
    flags: tuple[str, ...],
    message: str,
    run: Callable[..., int],
    artefact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("trt", artefact, "-o", tmp_path / "x.engine", *flags) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_inspecting_a_cut_off_engine(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.engine").write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="cut off"):
        inspect(tmp_path / "cut.engine")


# TensorRT itself, which cannot be installed here


class FakeCache:
    """A timing cache: lines of text."""

    def __init__(self, content: bytes) -> None:
        self.entries = set(content.split())

    def combine(self, other: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.entries |= other.entries
        return True

    def serialize(self) -> bytes:
        return b"\n".join(sorted(self.entries))


class FakeConfig:
    """A builder configuration that records its settings."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.cache: FakeCache | None = None
        self.accepts = True

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name not in {"calls", "cache", "accepts"}:
            self.calls.append(f"{name}={value}")

    def clear_flag(self, flag: str) -> None:
        self.calls.append(f"clear {flag}")

    def set_flag(self, flag: str) -> None:
        self.calls.append(f"set {flag}")

    def add_optimization_profile(self, profile: Any) -> int:
        self.calls.append("profile")
        return 0

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.calls.append(f"{pool} {size}")

    def create_timing_cache(self, content: bytes) -> FakeCache:
        return FakeCache(content)

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.calls.append(f"timings {len(cache.entries)}")
        self.cache = cache
        return self.accepts

    def get_timing_cache(self) -> FakeCache:
        assert self.cache is not None
        self.cache.entries.add(b"new")
        return self.cache


class FakeTensorRT:
    """Behaves like the module ``tensorrt`` of release 10 as far as building goes."""

    __version__ = "10.14.1.48"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    BuilderFlag = SimpleNamespace(TF32="TF32", VERSION_COMPATIBLE="VERSION_COMPATIBLE")
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    LayerInformationFormat = SimpleNamespace(ONELINE="oneline")
    LayerType = SimpleNamespace(CONVOLUTION="convolution", DEQUANTIZE="dequantize")
    DataType = SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16", INT8="int8")

    class ILogger:
        ERROR = 1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gpu = True
        self.report = "Format/Datatype: Row major linear FP16 format"

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        if not self.gpu:
            logger.log(0, "no CUDA-capable device is detected")
            raise TypeError("factory function returned nullptr")
        return SimpleNamespace(
            create_network=lambda flags: self.calls.append(f"network {flags}") or self.network(),
            create_builder_config=lambda: FakeConfig(self.calls),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self._shape),
            build_serialized_network=lambda network, config: self.calls.append("build") or b"ptrt",
        )

    def network(self) -> Any:
        half = SimpleNamespace(name="x", dtype="half")
        layers = [
            SimpleNamespace(type="convolution", name=name, get_input=lambda index: half)
            for name in ("conv1", "conv2")
        ]
        return SimpleNamespace(num_layers=2, get_layer=layers.__getitem__)

    def _shape(self, name: str, smallest: Any, optimum: Any, largest: Any) -> None:
        self.calls.append(f"{name} {smallest} {optimum} {largest}")

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse=lambda content: self.calls.append("parse") or True)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        lines = "\n".join(_line("CaskConvolution", self.report, names=name) for name in ("conv1", "conv2"))
        inspector = SimpleNamespace(get_engine_information=lambda form: lines)
        engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)


def test_the_calls_to_tensorrt(tmp_path: Path) -> None:
    module = FakeTensorRT()
    cache = tmp_path / "timings"
    cache.write_bytes(b"a b")
    options = BuildOptions(
        profile=SMALL,
        hardware_compatible=True,
        version_compatible=True,
        timing_cache=cache,
        workspace_bytes=1000,
    )
    built = build_plan(module, "tensorrt", b"onnx", options)
    assert module.calls == [
        "network 2",
        "parse",
        "clear TF32",
        "profiling_verbosity=detailed",
        "image (1, 32, 32, 3) (1, 64, 64, 3) (2, 64, 64, 3)",
        "trimap (1, 32, 32) (1, 64, 64) (2, 64, 64)",
        "profile",
        "hardware_compatibility_level=ampere",
        "set VERSION_COMPATIBLE",
        "workspace 1000",
        "timings 2",
        "build",
    ]
    assert built.plan == b"ptrt"
    assert built.layers.convolutions == {"fp16": 2}
    assert built.layers.read_from == "engine"
    assert cache.read_bytes().split() == [b"a", b"b", b"new"]


def test_a_merged_layer_does_not_decide_about_the_precision() -> None:
    """The report of a merged layer has the types at its outer edges; the network is strongly typed."""
    module = FakeTensorRT()
    module.report = "Datatype: Float"
    built = build_plan(module, "tensorrt", b"onnx", BuildOptions(profile=SMALL))
    assert built.layers.convolutions == {"fp32": 2}
    assert built.precision == "fp16"


def test_tensorrt_builds_for_the_local_gpu_only() -> None:
    with pytest.raises(InputError, match="--compute-capability does not apply to TensorRT"):
        build_plan(FakeTensorRT(), "tensorrt", b"", BuildOptions(compute_capabilities=("8.6",)))


def test_tensorrt_without_a_gpu() -> None:
    module = FakeTensorRT()
    module.gpu = False
    with pytest.raises(BuilderError, match="no CUDA-capable device is detected"):
        build_plan(module, "tensorrt", b"", BuildOptions())


def test_timings_of_another_build_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "timings"
    config = FakeConfig([])
    load_timings(config, path)
    path.write_bytes(b"theirs")
    store_timings(config, path)
    assert path.read_bytes().split() == [b"new", b"theirs"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["timings", "timings.lock"]


def test_timings_of_another_gpu_are_refused(tmp_path: Path) -> None:
    config = FakeConfig([])
    config.accepts = False
    (tmp_path / "timings").write_bytes(b"a")
    with pytest.raises(InputError, match="timing cache"):
        load_timings(config, tmp_path / "timings")


def test_the_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with lock(tmp_path / "timings"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# The network that is shipped, in every precision


@pytest.fixture(scope="module")
def full_width() -> Any:
    """Export the published network, stage 3, 26 M parameters, with fresh weights."""
    pytest.importorskip("torch")
    from dim.network import DIM

    return DIM(NetworkConfig(stage=3)).eval()


@pytest.fixture(scope="module")
def full_width_artefact(full_width: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dim_export.graph.onnx_file import describe, write
    from dim_export.graph.trace import trace

    path = tmp_path_factory.mktemp("full") / "fp32.onnx"
    write(trace(full_width), describe(full_width, checkpoint_sha256=""), path)
    return path


def _graph(model: Any, fp32: Path, precision: Precision) -> Any:
    """Run the steps of dim_export.int8.convert without those that need photographs."""
    import torch
    from onnxscript import ir

    from dim_export.graph.trace import trace
    from dim_export.int8.calibration import calibrate
    from dim_export.int8.convert import kept_float
    from dim_export.int8.quantise import quantise
    from dim_export.onnx_export.export import BF16_IR_VERSION, BF16_OPSET
    from dim_runtime.images.pairs import MattingSample

    if precision == "fp16":
        return trace(model, dtype=torch.float16)
    if precision == "bf16":
        return trace(model, dtype=torch.bfloat16, opset=BF16_OPSET, ir_version=BF16_IR_VERSION)
    graph = ir.load(fp32)
    if precision == "int8":
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        seen = calibrate(model, [MattingSample(image, np.full((64, 64), 128, np.uint8))])
        quantise(graph, seen.ranges("mse"), keep_float=kept_float(model.config))
    return graph


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "bytes_per_weight"), [("fp32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)]
)
def test_the_full_width_network(
    precision: Precision,
    bytes_per_weight: int,
    full_width: Any,
    full_width_artefact: Path,
    rtx: Any,
    tmp_path: Path,
) -> None:
    """Builds for two kinds of GPU without a GPU, and computes in the requested precision."""
    from dim_export.graph.onnx_file import describe, write

    path = tmp_path / "full.onnx"
    graph = _graph(full_width, full_width_artefact, precision)
    write(graph, describe(full_width, checkpoint_sha256="", precision=precision), path)
    options = BuildOptions(profile=window_profile(), compute_capabilities=("8.6", "12.0"))
    convert(path, tmp_path / "full.engine", builder="tensorrt-rtx", options=options)

    header = read_header(tmp_path / "full.engine")
    assert header.metadata.precision == precision
    assert header.engine.compute_capabilities == ("8.6", "12.0")
    assert header.engine.precision_read_from == "engine"
    counts = header.engine.convolutions
    assert sum(counts.values()) == CONVOLUTIONS
    assert counts[precision] >= CONVOLUTIONS - 4
    assert 1 < header.engine.plan_bytes / (bytes_per_weight * header.metadata.parameters) < 1.7


@pytest.mark.gpu
def test_a_real_engine_on_a_real_gpu(artefact: Path, tmp_path: Path) -> None:
    """Never executed so far. Agrees with ONNX Runtime on a window, whichever builder is installed."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from dim_runtime.backends.cuda import Gpu, import_core
    from dim_runtime.backends.tensorrt import TensorRTBackend

    try:
        Gpu(import_core("tensorrt-rtx"))
    except DimError as error:
        pytest.skip(error.problem)

    convert(artefact, tmp_path / "tiny.engine", options=BuildOptions(profile=SMALL))
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    trimap = np.full((1, 64, 64), 128, np.uint8)
    backend = TensorRTBackend(tmp_path / "tiny.engine")
    found = [backend.run(image, trimap) for _ in range(3)]
    backend.close()
    session = onnxruntime.InferenceSession(str(artefact))
    expected = session.run(["alpha"], {"image": image, "trimap": trimap})[0]
    assert np.mean(np.abs(found[0] - expected) > 1 / 255) < 0.005
    assert all(np.array_equal(found[0], again) for again in found[1:])


def test_engine_info_is_part_of_the_document(engine: Path) -> None:
    info = read_header(engine).engine
    assert EngineInfo.model_validate_json(info.model_dump_json()) == info
