"""How many of our files a reader must open to follow a trip through the code; see tools/trips.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "trips.py"


@pytest.fixture(scope="module")
def trips() -> Any:
    spec = importlib.util.spec_from_file_location("trips", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_image_to_alpha_enters_few_files(trips: Any) -> None:
    pytest.importorskip("onnxruntime")
    found = trips.measured("image")
    assert "dim_runtime/matting.py" in found["entered"]
    assert found["files"] <= 19


def test_checkpoint_to_onnx_enters_few_files(trips: Any) -> None:
    pytest.importorskip("onnxscript")
    found = trips.measured("onnx")
    assert "dim_export/graph/trace.py" in found["entered"]
    assert not [file for file in found["entered"] if "/int8/" in file or "/parity/" in file]
    assert found["files"] <= 20


@pytest.mark.slow
def test_checkpoint_to_verified_onnx_enters_few_files(trips: Any) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    found = trips.measured("verified")
    assert "dim_export/parity/verify.py" in found["entered"]
    assert found["files"] <= 57


def test_recipe_to_training_step_enters_few_files(trips: Any) -> None:
    pytest.importorskip("accelerate")
    found = trips.measured("train")
    assert "dim_training/trainer.py" in found["entered"]
    assert found["files"] <= 29


def test_a_trip_that_fails_raises(trips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trips.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the trip image failed"):
        trips.measured("image")


def test_calls_and_jumps_are_counted(trips: Any, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "inner.py").write_text("def leaf(): return [x for x in (1, 2)]\nleaf()\n")
    (tmp_path / "ours" / "outer.py").write_text("def top(leaf): return sorted([1], key=lambda x: leaf())\n")
    names: dict[str, dict[str, Any]] = {}
    for name in ("inner", "outer"):
        path = tmp_path / "ours" / f"{name}.py"
        names[name] = {"__name__": name}
        exec(compile(path.read_text(), str(path), "exec"), names[name])
    recorder = trips.Footprints([str(tmp_path / "ours")])
    with recorder.recording():
        names["outer"]["top"](names["inner"]["leaf"])
    inner, outer = (str(tmp_path / "ours" / f"{name}.py") for name in ("inner", "outer"))
    assert sorted(code.co_name for code in recorder.functions) == ["leaf", "top"]
    assert recorder.files == [inner, outer]
    assert recorder.jumps == {(outer, inner)}
