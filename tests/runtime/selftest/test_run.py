"""The GPU self-test: its whole flow on the CPU, and with a stand-in for the GPU; what makes a check fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dim.contract import ArtefactMetadata
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.cuda import Gpu
from dim_runtime.backends.io_binding import BoundSession
from dim_runtime.cli.app import app
from dim_runtime.errors import BackendError
from dim_runtime.selftest import checks, run
from dim_runtime.selftest.checks import CHECKS, Device, check_backend
from dim_runtime.selftest.references import NETWORKS, compare, model_path, read_reference
from dim_runtime.selftest.report import Check, Report, Verdict

from ..backends.fake_cuda import FakeCore


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the checks of memory and speed short: here they only have to run."""
    for name, value in {"SPEED_SIDE": 64, "SPEED_RUNS": 3}.items():
        monkeypatch.setattr(checks, name, value)


BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")
MACHINE = ["gpu", "references", "ceiling"]


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., tuple[int, str, Any]]:
    """Return a function that runs `dim-matte doctor --gpu` and reads what it printed and wrote."""

    def call(*options: str) -> tuple[int, str, Any]:
        target = tmp_path / "report.json"
        done = CliRunner().invoke(app, ["doctor", "--gpu", "-o", str(target), *options])
        return done.exit_code, done.stdout, json.loads(target.read_text())

    return call


def test_the_whole_flow_on_the_cpu(command: Callable[..., tuple[int, str, Any]]) -> None:
    pytest.importorskip("onnxruntime")
    code, text, report = command("--device", "cpu")
    found = [(check["part"], check["name"]) for check in report["checks"]]
    assert found == [("machine", name) for name in MACHINE] + [
        (part, name) for part in BACKENDS for name in CHECKS
    ]
    ran = {check["name"]: check["verdict"] for check in report["checks"] if check["part"] == "onnxruntime"}
    assert ran.pop("graphs") == ran.pop("dlpack") == "skipped"
    assert set(ran.values()) == {"passed"}, text
    assert code == 0
    assert "9 passed, 0 failed" in text


def test_without_a_gpu(command: Callable[..., tuple[int, str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore()
    core.failing = {"devices"}
    monkeypatch.setattr(run, "import_core", lambda extra: core)
    code, text, report = command("--json")
    assert code == 1
    assert json.loads(text) == report
    verdicts = {(check["part"], check["name"]): check["verdict"] for check in report["checks"]}
    assert verdicts.pop(("machine", "gpu")) == "failed"
    assert verdicts.pop(("machine", "references")) == "passed"
    assert set(verdicts.values()) == {"skipped"}
    fix = next(check["fix"] for check in report["checks"] if check["name"] == "gpu")
    assert "driver" in fix


class OnFakeGpu(Backend):
    """ONNX Runtime's CPU build in the memory of a stand-in for the GPU: every section can run."""

    def __init__(self, path: Path, device: str, core: FakeCore) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        gpu = Gpu(core, device)
        self.bound = BoundSession(gpu, gpu.new_stream(), session, kind="cpu")
        self._metadata = read_metadata(path)

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: Any, trimap: Any) -> Any:
        return self.bound.run(image, trimap)

    def run_on_device(self, image: Any, trimap: Any) -> Any:
        return self.bound.run_on_device(image, trimap)

    def close(self) -> None:
        self.bound.close()


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCore]:
    """Installs a GPU with every back end."""
    pytest.importorskip("onnxruntime")

    def install(capability: tuple[int, int] = (8, 6)) -> FakeCore:
        core = FakeCore(capability, eager=True)
        monkeypatch.setattr(run, "import_core", lambda extra: core)
        monkeypatch.setattr(Gpu, "free_bytes", lambda self: 10**10)
        monkeypatch.setattr(run, "_missing", lambda candidate, device: None)
        monkeypatch.setattr(run, "_has_cuda_build", lambda: True)
        monkeypatch.setattr(run, "_cuda_flops", lambda device: 1e12)
        monkeypatch.setattr(run, "build_engine", lambda network, **_: model_path(network))
        monkeypatch.setattr(run, "open_backend", lambda path, device, **_: OnFakeGpu(path, device, core))
        return core

    return install


@pytest.mark.slow
def test_every_section_on_a_gpu(fake_gpu: Callable[..., FakeCore], tmp_path: Path) -> None:
    core = fake_gpu()
    report = run.run_selftest("cuda:1", tmp_path)
    skipped = [(check.part, check.name) for check in report.checks if check.verdict is not Verdict.PASSED]
    assert skipped == [("onnxruntime", "graphs")], report.table()
    assert report.passed
    assert report.machine["compute_capability"] == "8.6"
    speed = [check for check in report.checks if check.name == "speed"]
    assert all(check.values["share_of_ceiling"] for check in speed)
    assert core.held() == 0


def test_tensorrt_rtx_is_skipped_on_cards_that_it_does_not_support(
    fake_gpu: Callable[..., FakeCore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu((9, 0))
    opens = Check(part="", name="opens", verdict=Verdict.PASSED, found="")
    monkeypatch.setattr(run, "check_backend", lambda *_: [opens])
    report = run.run_selftest("cuda", tmp_path)
    rtx = [check for check in report.checks if check.part == "tensorrt-rtx"]
    assert {check.verdict for check in rtx} == {Verdict.SKIPPED}
    assert "this GPU has 9.0" in rtx[0].found
    assert report.passed


def test_nothing_tested_is_no_success() -> None:
    skipped = Check(part="tensorrt", name="opens", verdict=Verdict.SKIPPED, found="not installed")
    assert not Report(device="cuda", machine={}, checks=(skipped,)).passed


class Scripted(Backend):
    """Gives the reference's alpha, changed by a function of the number of the run."""

    runs = 0

    def __init__(self, path: Path, change: Callable[[Any, int], Any]) -> None:
        self.name = next(name for name in NETWORKS if model_path(name) == path)
        self.change = change

    @property
    def metadata(self) -> ArtefactMetadata:
        return read_metadata(model_path(self.name))

    def run(self, image: Any, trimap: Any) -> Any:
        Scripted.runs += 1
        reference = read_reference(self.name)
        same = image.shape == reference.image.shape
        alpha = reference.alpha if same else np.zeros(trimap.shape, np.float32)
        turned = same and not np.array_equal(image, reference.image)
        return self.change(alpha[:, ::-1, ::-1] if turned else alpha, Scripted.runs)


def verdicts(change: Callable[[Any, int], Any], **changes: Any) -> dict[str, Check]:
    host = Device(None, None, run._exhaust_host, lambda: 10**9, 1e9)._replace(**changes)
    found = check_backend("tensorrt", model_path, lambda path: Scripted(path, change), host)
    assert [check.name for check in found] == list(CHECKS)
    return {check.name: check for check in found}


def test_what_is_right_passes() -> None:
    found = verdicts(lambda alpha, run: alpha)
    assert {check.verdict for check in found.values()} == {Verdict.PASSED, Verdict.SKIPPED}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("parity", lambda alpha, run: np.clip(alpha + 0.01, 0, 1)),
        ("parity", lambda alpha, run: alpha * np.float32("nan")),
        ("parity", lambda alpha, run: alpha * np.float32(0.9999)),
        ("repeats", lambda alpha, run: alpha + np.float32(1e-7) * run),
        ("threads", lambda alpha, run: alpha + np.float32(1e-7) * run),
    ],
    ids=["another network", "nan", "known pixels", "other bits", "other bits in threads"],
)
def test_what_is_wrong_fails_and_names_what_to_do(name: str, change: Callable[[Any, int], Any]) -> None:
    check = verdicts(change)[name]
    assert check.verdict is Verdict.FAILED
    assert check.fix
    assert check.expected


def test_memory_that_does_not_come_back_fails() -> None:
    left = iter(range(10**9, 0, -20 * 10**6))
    check = verdicts(lambda alpha, run: alpha, free_bytes=lambda: next(left))["leaks"]
    assert check.verdict is Verdict.FAILED
    assert check.values["lost_bytes"] == 100 * 10**6


def test_memory_that_another_process_takes_once_is_no_leak() -> None:
    left = iter([10**9, 10**9, 8 * 10**8, 8 * 10**8, 8 * 10**8, 8 * 10**8])
    check = verdicts(lambda alpha, run: alpha, free_bytes=lambda: next(left))["leaks"]
    assert (check.verdict, check.values["lost_bytes"]) == (Verdict.PASSED, 0)


def test_an_allocation_that_must_be_refused() -> None:
    check = verdicts(lambda alpha, run: alpha, exhaust=lambda size: None)["recovers"]
    assert check.verdict is Verdict.FAILED


def test_a_graph_that_replays_the_recorded_window_fails() -> None:
    """A replay with the recorded inputs gives the second window's alpha again."""

    class Stuck(Scripted):
        recorded: Any = None

        def run(self, image: Any, trimap: Any) -> Any:
            alpha = super().run(image, trimap)
            if self.name == "plain" and not np.array_equal(image, read_reference("plain").image):
                Stuck.recorded = alpha
            return alpha if Stuck.recorded is None else Stuck.recorded

        def run_on_device(self, image: Any, trimap: Any) -> Any:
            return self.run(image, trimap)

    device = Device(lambda array: array, lambda array: array, run._exhaust_host, lambda: 10**9, 1e9)
    found = check_backend("tensorrt", model_path, lambda path: Stuck(path, lambda alpha, run: alpha), device)
    assert next(check for check in found if check.name == "graphs").verdict is Verdict.FAILED


def test_a_back_end_that_does_not_open_skips_the_rest() -> None:
    def refuse(path: Path) -> Backend:
        raise BackendError("cannot open", got="a plan", why="of another release", fix="build it again")

    found = check_backend("tensorrt", model_path, refuse, Device(None, None, len, lambda: 0, None))
    assert (found[0].verdict, found[0].fix) == (Verdict.FAILED, "build it again")
    assert found[0].found == "BackendError: cannot open; a plan; of another release"
    assert {check.found for check in found[1:]} == {"does not open"}


def test_a_build_that_fails_names_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.CompletedProcess([], 2, stdout="", stderr="error: no CUDA-capable device\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(BackendError, match="no CUDA-capable device") as caught:
        run.build_engine("plain", builder="tensorrt", gpu=None, folder=tmp_path)
    assert "dim-export trt" in str(caught.value.fix)


@pytest.mark.slow
def test_a_real_build(tmp_path: Path) -> None:
    """TensorRT-RTX builds without a GPU: the command that the self-test runs is a real one."""
    pytest.importorskip("tensorrt_rtx")
    engine = run.build_engine("plain", builder="tensorrt-rtx", gpu=None, folder=tmp_path)
    assert engine.stat().st_size > 100_000


def test_the_references_are_those_of_the_networks() -> None:
    pytest.importorskip("onnxruntime")
    from dim_runtime.backends.open import open_backend

    for name in NETWORKS:
        reference = read_reference(name)
        backend = open_backend(model_path(name))
        assert compare(reference, backend.run(reference.image, reference.trimap)).passed
        wrong = np.clip(reference.alpha + np.float32(0.02), 0, 1)
        assert not compare(reference, wrong).passed
