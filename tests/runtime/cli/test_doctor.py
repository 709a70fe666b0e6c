"""What the doctor finds: engines that are there, missing, broken or in each other's way."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dim_runtime.cli import doctor
from dim_runtime.cli.doctor import Finding, examine, to_json


def found(name: str) -> Finding:
    return {finding.name: finding for finding in examine()}[name]


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mattes are made."""
    monkeypatch.setattr(doctor, "_trials", lambda: iter(()))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, untried: None) -> dict[str, str]:
    """Return the distributions that are installed, with their versions."""
    installed: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(doctor, "version", version)
    return installed


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_that_is_there_makes_a_matte(engine: str) -> None:
    pytest.importorskip(engine)
    trial = found(f"{engine} cpu")
    assert trial.ok
    assert trial.text.endswith("runs")


def test_an_engine_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    # What two packages that overwrote each other leave behind: a module without its contents.
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__spec__=object(), __version__="1"))
    trial = found("onnxruntime cpu")
    assert not trial.ok
    assert trial.needed


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("module", "name", "extra", "needed"),
    [
        ("onnxruntime", "onnxruntime", "cpu", True),
        ("openvino", "openvino", "openvino", False),
        ("tensorrt", "tensorrt", "tensorrt", False),
        ("tensorrt_rtx", "tensorrt-rtx", "tensorrt-rtx", False),
        ("ray", "ray", "ray", False),
    ],
)
def test_what_is_missing_comes_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str, needed: bool
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    finding = found(name)
    assert (finding.ok, finding.needed) == (False, needed)
    assert f'pip install "dim-matting[{extra}]"' in finding.text


def test_both_packages_of_onnx_runtime_are_a_fault(packages: dict[str, str]) -> None:
    packages |= {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.21.0"}
    finding = found("onnxruntime clash")
    assert (finding.ok, finding.needed) == (False, True)
    assert "onnxruntime 1.20.0 and onnxruntime-gpu 1.21.0" in finding.text
    remove = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install"
    assert finding.text.count(remove) == 2


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_one_package_is_none(packages: dict[str, str], name: str) -> None:
    pytest.importorskip("onnxruntime")
    packages[name] = "1.20.0"
    assert "onnxruntime clash" not in {finding.name for finding in examine()}
    assert f"{name} 1.20.0" in found("onnxruntime").text


def fake_cuda(monkeypatch: pytest.MonkeyPatch, devices: Callable[[], tuple[Any, ...]]) -> None:
    core = SimpleNamespace(Device=SimpleNamespace(get_all_devices=devices))
    monkeypatch.setitem(sys.modules, "cuda.core", core)  # type: ignore[arg-type]


@pytest.mark.usefixtures("untried")
def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = tuple(SimpleNamespace(device_id=n, name="Card", compute_capability=(8, 6)) for n in (0, 1))
    fake_cuda(monkeypatch, lambda: cards)
    assert "cuda:0 Card (compute capability 8.6), cuda:1 Card" in found("gpus").text


@pytest.mark.usefixtures("untried")
def test_no_gpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[Any, ...]:
        raise RuntimeError("no NVIDIA display driver\nand a long text")

    fake_cuda(monkeypatch, missing)
    assert "none (no NVIDIA display driver)" in found("gpus").text
    fake_cuda(monkeypatch, tuple)
    finding = found("gpus")
    assert finding.text.endswith("none")
    assert not finding.ok


@pytest.mark.usefixtures("untried")
def test_engines_that_no_gpu_has_run_are_named() -> None:
    for name in ("tensorrt", "tensorrt-rtx"):
        assert "no GPU has run" in found(name).text


def test_the_report_as_json() -> None:
    findings = [Finding("a", True, False, "text"), Finding("b", False, True, "é")]
    assert json.loads(to_json(findings))[1] == {"name": "b", "ok": False, "needed": True, "text": "é"}
