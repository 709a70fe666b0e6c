"""``dim-export`` from the outside: exit codes, messages, files left and not left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

import dim
from dim import checkpoint
from dim.contract import METADATA_KEY
from dim.network.pooling import PoolState
from dim_export import cli
from dim_export.graph.pooling import SymbolicPooling
from dim_runtime.artefacts.onnx_file import read_metadata

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process and return its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dim-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return call


@pytest.fixture
def small_artefact(live_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the live artefact frozen to windows of 64×96 px, which are quick to compare."""
    model = onnx.load(live_artefact)
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = entry.value.replace('"static_shape":null', '"static_shape":[1,64,96]')
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(model, path)
    return path


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("flags", [["--version"], ["-h"], ["onnx", "-h"]])
def test_version_and_help(run: Run, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 0
    printed = capsys.readouterr().out
    assert printed == f"dim-export {dim.__version__}\n" if "--version" in flags else "-o" in printed


def test_a_folder_in_place_of_a_file(
    run: Run, live_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("onnx", live_checkpoint, "-o", tmp_path) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "got: a folder" in printed
    assert f"fix: -o {tmp_path / 'model.onnx'}" in printed
    assert not _names(tmp_path)


def test_export_verifies_and_writes(
    run: Run, live_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "about" / "dim.json"
    flags = ("--shape", "1,64,96", "--report", document)
    assert run("onnx", live_checkpoint, "-o", tmp_path / "dim.onnx", *flags) == 0
    assert json.loads(document.read_text())["static_shape"] == [1, 64, 96]
    printed = capsys.readouterr().out
    assert "unknown pixels beyond 1/255" in printed
    assert "ok" in printed
    assert "passed: it computes what its checkpoint computes" in printed
    assert "pooling: 2×2 pools" in printed
    assert _names(tmp_path) == ["about", "dim.onnx"]
    assert run("inspect", tmp_path / "dim.onnx", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metadata"]["static_shape"] == [1, 64, 96]
    assert found["metadata"]["command"] == "dim-export onnx live.safetensors -o dim.onnx --shape 1,64,96"


class _LastWins(SymbolicPooling):
    """Pooling that gives a tie to the last of equals: what a careless graph does."""

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        a, b, c, d = self.space_to_depth(x).chunk(4, dim=1)
        top, bottom = torch.maximum(a, b), torch.maximum(c, d)
        return torch.maximum(top, bottom), torch.cat([top > bottom, a > b, c > d], 1)


def test_wrong_tie_breaking_fails_and_leaves_no_file(
    run: Run,
    live_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dim_export.graph.trace.SymbolicPooling", _LastWins)
    assert run("onnx", live_checkpoint, "-o", tmp_path / "dim.onnx", "--shape", "1,64,64") == 1
    printed = capsys.readouterr()
    assert "FAIL" in printed.out
    assert "passed: " not in printed.out
    assert "does not compute the function of its checkpoint" in printed.err
    assert not _names(tmp_path)


def test_verify_passes_and_writes_the_report(
    run: Run, live_checkpoint: Path, live_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", live_checkpoint, live_artefact, "--runs", 1, "-o", tmp_path / "deep" / "report") == 0
    assert _names(tmp_path / "deep" / "report") == ["report.html", "report.json"]
    report = json.loads((tmp_path / "deep" / "report" / "report.json").read_text())
    assert report["passed"]
    assert report["command"] == "dim-export verify live.safetensors live.onnx --device cpu --runs 1"
    (artefact,) = report["artefacts"]
    parity = artefact["parity"]
    assert parity["same_checkpoint"]
    assert len(parity["cases"]) == 7
    assert {case["windows"] > 1 for case in parity["cases"]} == {True, False}
    assert all(case["spread"] > 0.02 for case in parity["cases"])
    assert artefact["speed"]["p50_s"] > 0
    printed = capsys.readouterr().out
    assert "live.onnx against live.safetensors" in printed
    assert "run by onnxruntime" in printed
    assert (tmp_path / "deep" / "report" / "report.html").read_text().startswith("<!DOCTYPE html>")


def _spoiled(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    model = checkpoint.load(source)
    with torch.no_grad():
        change(model)
    checkpoint.save(model, target)
    return target


def test_verify_fails_on_a_scaled_last_layer(
    run: Run, live_checkpoint: Path, small_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = _spoiled(
        live_checkpoint,
        tmp_path / "scaled.safetensors",
        lambda model: model.backbone.decoder.deconv1.weight.mul_(1.05),
    )
    assert run("verify", scaled, small_artefact, "--runs", 0) == 1
    printed = capsys.readouterr().out
    assert "FAIL" in printed
    assert "names another checkpoint" in printed


def test_verify_names_the_tensor_that_is_nan(
    run: Run, live_checkpoint: Path, small_artefact: Path, tmp_path: Path
) -> None:
    model = onnx.load(small_artefact)
    (bias,) = [value for value in model.graph.initializer if value.name == "refiner.refine_pred.bias"]
    bias.raw_data = b"\x00\x00\xc0\x7f" * 16
    onnx.save(model, tmp_path / "nan.onnx")
    options = ("--runs", 0, "--report", tmp_path / "report.json")
    assert run("verify", live_checkpoint, tmp_path / "nan.onnx", *options) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["passed"]
    assert report["artefacts"][0]["parity"]["not_finite"] == ["nan.onnx: refiner.refine_pred.bias"]
    assert report["artefacts"][0]["parity"]["nan_pixels"] > 0


def test_a_nan_in_the_checkpoint_is_named_and_leaves_no_file(
    run: Run, live_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = _spoiled(
        live_checkpoint,
        tmp_path / "nan.safetensors",
        lambda model: model.refiner.refine_conv1.bias.fill_(float("nan")),
    )
    assert run("onnx", spoiled, "-o", tmp_path / "dim.onnx", "--shape", "1,64,64") == 1
    assert "nan.safetensors: refiner.refine_conv1.bias" in capsys.readouterr().err
    assert _names(tmp_path) == ["nan.safetensors"]


def test_inspect_prints_what_is_inside(
    run: Run, live_artefact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", live_artefact) == 0
    printed = capsys.readouterr().out
    for text in (
        "image: uint8 N, H, W, 3",
        "DIM stage 3, width 0.125",
        "192 px",
        "213 nodes",
        "SpaceToDepth",
        "a test",
    ):
        assert text in printed


def _foreign(path: Path) -> Path:
    value = helper.make_tensor_value_info
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])]
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_a_foreign_model_is_told_so(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", _foreign(tmp_path / "relu.onnx")) == 2
    error = capsys.readouterr().err
    assert "not an artefact of this toolkit" in error
    assert "dim-export onnx" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "absent.pth", "-o", "dim.onnx"], "no such file"),
        (["onnx", "CHECKPOINT", "-o", "dim.onnx", "--shape", "512"], "cannot read --shape"),
        (["onnx", "CHECKPOINT", "-o", "dim.onnx", "--shape", "1,-2,3"], "cannot read --shape"),
        (["onnx", "CHECKPOINT", "-o", "dim.onnx", "--shape", "1,100,64"], "--shape 1,128,64"),
        (["onnx", "CHECKPOINT", "-o", "dim.onnx", "--shape", "2,64,64"], "--no-verify"),
        (["onnx", "CHECKPOINT", "-o", "dim.pb"], "dim.onnx"),
        (["inspect", "absent.onnx"], "no such file"),
        (["verify", "CHECKPOINT", "absent.onnx"], "no such file"),
        (["bench", "CHECKPOINT", "--size", "100"], "multiple of 32"),
    ],
)
def test_bad_input_is_an_error_without_a_traceback(
    run: Run,
    live_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*(live_checkpoint if part == "CHECKPOINT" else part for part in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (
            ["verify", "CHECKPOINT", "absent.onnx", "--backend", "onnx"],
            ("onnxruntime", "openvino", "tensorrt"),
        ),
        (["verify", "CHECKPOINT", "absent.onnx", "--precision", "half"], ("fp32", "fp16", "bf16", "int8")),
        (["onnx", "CHECKPOINT", "-o", "dim.onnx", "--precision", "int4"], ("fp32", "fp16", "bf16", "int8")),
        (["sensitivity", "CHECKPOINT", "--data", "absent", "--mode", "both"], ("alone", "spared")),
        (["context", "--images", "absent", "--backend", "onnx"], ("onnxruntime", "openvino", "tensorrt")),
        (["bench", "CHECKPOINT", "--lowered", "fp16"], ("bf16",)),
        (["bench", "CHECKPOINT", "--backend", "onnx"], ("onnxruntime", "openvino", "tensorrt")),
    ],
)
def test_an_unknown_choice_lists_the_choices(
    run: Run,
    live_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    choices: tuple[str, ...],
) -> None:
    assert run(*(live_checkpoint if part == "CHECKPOINT" else part for part in arguments)) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "is not" in error
    assert all(f"'{choice}'" in error for choice in choices)


def test_help_lists_the_choices(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("onnx", "--help") == 0
    printed = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "fp32|fp16|bf16|int8" in printed
    assert "minmax|percentile|mse" in printed


def test_bench_prints_a_ratio(
    run: Run, live_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert run("bench", live_checkpoint, "--size", 64, "--pairs", 2, "--report", tmp_path / "bench.json") == 0
    found: dict[str, Any] = json.loads((tmp_path / "bench.json").read_text())
    assert len(found["torch_s"]) == len(found["onnxruntime_s"]) == 2
    first, second = (a / b for a, b in zip(found["torch_s"], found["onnxruntime_s"], strict=True))
    assert found["ratio"] == pytest.approx((first + second) / 2)
    assert found["threads"] == threads
    assert "as fast as PyTorch" in capsys.readouterr().out


BLOCKED = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
sys.argv = ["dim-export", *sys.argv[2:]]
from dim_export.cli import main
main()
"""


def _blocked(packages: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process where some packages cannot be imported."""
    command = [sys.executable, "-c", BLOCKED, packages, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_onnxruntime_the_error_names_the_extra(live_checkpoint: Path, tmp_path: Path) -> None:
    done = _blocked("onnxruntime", "onnx", live_checkpoint, "-o", tmp_path / "dim.onnx")
    assert done.returncode == 2
    assert "dim-matting[cpu]" in done.stderr
    assert "--no-verify" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_no_verify_works(live_checkpoint: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "dim.onnx", "--shape", "2,32,32", "--no-verify")
    done = _blocked("onnxruntime", "onnx", live_checkpoint, *options)
    assert done.returncode == 0, done.stderr
    assert _names(tmp_path) == ["dim.onnx"]


def test_without_torch_the_error_names_the_extra(tmp_path: Path) -> None:
    done = _blocked("torch", "onnx", "dim.pth", "-o", tmp_path / "dim.onnx")
    assert done.returncode == 2
    assert "dim-matting[export]" in done.stderr


def test_inspect_needs_no_torch_and_no_engine(live_artefact: Path) -> None:
    done = _blocked("torch,onnxruntime,onnxscript", "inspect", live_artefact)
    assert done.returncode == 0, done.stderr
    assert "213 nodes" in done.stdout


def test_json_is_all_that_a_verified_export_prints(
    run: Run, live_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("-o", tmp_path / "dim.onnx", "--shape", "1,32,32", "--json")
    assert run("onnx", live_checkpoint, *options) == 0
    assert json.loads(capsys.readouterr().out)["static_shape"] == [1, 32, 32]


def test_inspect_takes_what_other_commands_take(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "https://127.0.0.1:9/weights.pth") == 2
    assert "SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize("backend", [(), ("--backend", "onnxruntime")])
def test_only_openvino_lowers(
    run: Run, live_artefact: Path, backend: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", live_artefact, "--lowered", "bf16", *backend) == 2
    assert "no --backend openvino" in capsys.readouterr().err


def test_inspect_prints_the_work_of_a_checkpoint(
    run: Run, live_checkpoint: Path, live_artefact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", live_checkpoint, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    metadata = read_metadata(live_artefact)
    assert found["multiply_adds_per_pixel"] == metadata.multiply_adds_per_pixel
    assert found["network"] == metadata.network.model_dump(mode="json")
    assert found["parameters"] == sum(p.numel() for p in checkpoint.load(live_checkpoint).parameters())
    assert run("inspect", live_checkpoint) == 0
    assert f"{metadata.multiply_adds_per_pixel:,} multiply-adds per pixel" in capsys.readouterr().out
    assert run("inspect", live_checkpoint.with_name("gone.pth")) == 2
    assert "gone.pth" in capsys.readouterr().err
