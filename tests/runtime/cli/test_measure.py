"""The measurement of speed: its arithmetic, its report, and the comparison with eager PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.cli.app import app
from dim_runtime.cli.measure import Against, Bench, BenchError, eager_pytorch, matrix_ceiling


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Return a small image whose trimap is half unknown."""
    image, trimap = tmp_path / "image.png", tmp_path / "trimap.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    hints = np.zeros((90, 120), np.uint8)
    hints[:, 60:] = 128
    cv2.imwrite(str(trimap), hints)
    return str(image), str(trimap)


def _bench(**changes: object) -> Bench:
    settings: dict[str, object] = {
        "model": "m.onnx", "backend": "onnxruntime", "device": "cpu", "precision": "fp32",
        "height": 1000, "width": 2000, "windows": 2, "context": 192, "exact": True, "cost": 0.5,
        "work": 4e9, "opening_s": 0.5, "first_s": 3.0, "seconds": (2.0, 1.0, 4.0), "plan_seconds": 0.01,
        "peak_bytes": 10**9,
    }  # fmt: skip
    return Bench(**(settings | changes))  # type: ignore[arg-type]


def test_rates_follow_from_the_median() -> None:
    against = Against(name="eager", seconds=(5.0, 7.0, 6.0), peak_bytes=4 * 10**9)
    found = _bench(ceiling_gflops=16.0, against=against)
    assert found.p50_s == 2
    assert found.p95_s == pytest.approx(3.8)
    assert found.megapixels_per_s == 1
    assert found.gflops == 4
    assert found.share_of_ceiling == 0.25
    assert found.speedup == 3
    assert found.memory_share == 0.25
    assert _bench(device="cuda", against=against).memory_share is None, "a GPU's memory is not the host's"


def test_the_command_writes_what_others_rely_on(pair: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    report = tmp_path / "bench.json"
    options = ["--runs", "2", "--against", "torch", "--report", str(report), "--threads", "1"]
    done = CliRunner().invoke(app, ["bench", *pair, *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "× as fast" in done.stdout
    assert "first call" in done.stdout
    found = json.loads(report.read_text())
    assert {"p50_s", "p95_s", "megapixels_per_s", "gflops", "peak_bytes", "cost"} <= set(found)
    assert {"name", "p50_s", "peak_bytes"} <= set(found["against"])
    assert found["speedup"] == pytest.approx(found["against"]["p50_s"] / found["p50_s"])
    assert min(found["opening_s"], found["first_s"]) > 0
    assert len(found["seconds"]) == len(found["against"]["seconds"]) == 2
    whole = 96 * 128 * read_metadata(default_model()).multiply_adds_per_pixel
    # The margins that layers drop are no work.
    assert found["work"] == pytest.approx(found["cost"] * whole)
    assert 0 < found["work"] <= whole


def test_a_machine_without_torch_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BenchError, match="no torch here"):
        eager_pytorch(read_metadata(default_model()), 32, 32, runs=1)


def test_a_device_that_pytorch_does_not_have() -> None:
    torch = pytest.importorskip("torch")
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(BenchError, match=f"on {missing}"):
        eager_pytorch(read_metadata(default_model()), 32, 32, runs=1, device=missing)


def test_the_ceiling_is_a_rate() -> None:
    assert 1 < matrix_ceiling() < 1e6


def test_json_prints_the_document_that_report_writes(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = CliRunner().invoke(app, ["bench", "--runs", "1", "--json", "--report", str(report)])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(report.read_text())
