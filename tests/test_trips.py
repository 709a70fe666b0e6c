"""Trips through the code (tools/trips.py): few files, and those that docs/architecture.md names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import trips

ARCHITECTURE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")
DESCRIBED = {
    "Image → alpha": "image",
    "Checkpoint → verified ONNX": "verified",
    "Recipe → checkpoint": "train",
}

measured = cache(trips.measured)


def stated_files(trip: str) -> int:
    """Return the largest number of files that docs/architecture.md states for a trip."""
    (number,) = re.findall(rf"^\| {re.escape(trip)} \| (\d+) \|$", ARCHITECTURE, re.MULTILINE)
    return int(number)


def stations() -> dict[str, list[str]]:
    """Return by heading of docs/architecture.md the file that each numbered line begins with."""
    found = {}
    for section in re.split(r"^## ", ARCHITECTURE, flags=re.MULTILINE)[1:]:
        lines = re.findall(r"^\d+\. (.*)$", section, re.MULTILINE)
        if lines:
            found[section.splitlines()[0]] = [re.match(r"`([^`]+)`: ", line)[1] for line in lines]  # type: ignore[index]
    return found


def test_every_trip_is_described_in_about_ten_lines() -> None:
    found = stations()
    assert set(found) == set(DESCRIBED)
    assert all(8 <= len(files) <= 12 and len(set(files)) == len(files) for files in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("heading", DESCRIBED)
def test_the_run_enters_every_file_that_the_trip_names(heading: str) -> None:
    for package in ("torch", "onnxscript", "onnxruntime", "accelerate"):
        pytest.importorskip(package)
    entered = set(measured(DESCRIBED[heading])["entered"])
    assert [file for file in stations()[heading] if file not in entered] == []


def test_image_to_alpha_enters_few_files() -> None:
    pytest.importorskip("onnxruntime")
    found = measured("image")
    assert "dim_runtime/matting.py" in found["entered"]
    assert found["files"] <= stated_files("Image → alpha, one window")


def test_checkpoint_to_onnx_enters_few_files() -> None:
    pytest.importorskip("onnxscript")
    found = measured("onnx")
    assert "dim_export/graph/trace.py" in found["entered"]
    assert not [file for file in found["entered"] if "/int8/" in file or "/parity/" in file]
    assert found["files"] <= stated_files("Checkpoint → ONNX, not verified")


@pytest.mark.slow
def test_checkpoint_to_verified_onnx_enters_few_files() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    found = measured("verified")
    assert "dim_export/parity/verify.py" in found["entered"]
    assert found["files"] <= stated_files("Checkpoint → verified ONNX")


def test_recipe_to_training_step_enters_few_files() -> None:
    pytest.importorskip("accelerate")
    found = measured("train")
    assert "dim_training/trainer.py" in found["entered"]
    assert found["files"] <= stated_files("Recipe → training step")


def test_a_trip_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trips.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the trip image failed"):
        trips.measured("image")


def test_calls_and_jumps_are_counted(tmp_path: Path) -> None:
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
