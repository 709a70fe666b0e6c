"""The GPU kit: its order, its limits, and a dry run of a whole step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "gpu"


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("kit")


def step(kit: Any, code: str, seconds: int = 60) -> Any:
    """Return a step that runs a line of Python."""
    return kit.Step(
        "try", seconds, lambda setting: [sys.executable, "-c", code], lambda report: report["text"]
    )


def test_a_step_reports_what_its_json_holds(kit: Any, tmp_path: Path) -> None:
    setting = kit.Setting(tmp_path, "cpu", True)
    file = tmp_path / "try.json"
    written = json.dumps({"text": "all is well"})
    row = kit.run(step(kit, f"print('hello'); open({str(file)!r}, 'w').write({written!r})"), setting, 60)
    assert (row["state"], row["found"]) == ("passed", "all is well")
    assert (tmp_path / "try.log").read_text() == "hello\n"


def test_what_an_earlier_run_found_does_not_stand_for_a_failed_step(kit: Any, tmp_path: Path) -> None:
    (tmp_path / "try.json").write_text('{"text": "all is well"}')
    row = kit.run(step(kit, "raise SystemExit(3)"), kit.Setting(tmp_path, "cpu", True), 60)
    assert (row["state"], row["found"]) == ("failed, exit code 3", "see try.log")


def test_a_network_without_any_speed_has_a_summary(kit: Any) -> None:
    report = {"ties": {"fp32": 2}, "speed": {"eager fp32": {"error": "out of memory"}}}
    assert kit.network_summary(report) == "ties differ in 2 windows; no speed was measured"


@pytest.mark.parametrize(
    ("code", "left", "state"),
    [
        ("raise SystemExit(3)", 60, "failed, exit code 3"),
        ("import time; time.sleep(60)", 7, "out of time"),
        ("", 5, "skipped"),
    ],
)
def test_steps_that_do_not_pass(code: str, left: float, state: str, kit: Any, tmp_path: Path) -> None:
    row = kit.run(step(kit, code), kit.Setting(tmp_path, "cpu", True), left)
    assert row["state"] == state
    kit.write_table(kit.Setting(tmp_path, "cpu", True), [row])
    assert f"| try | {state} |" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "kit.json").read_text())["steps"] == [row]


def test_every_step_s_script_is_there(kit: Any, tmp_path: Path) -> None:
    for found in kit.STEPS:
        command = found.command(kit.Setting(tmp_path, "cuda", False))
        assert command[1] == "-c" or Path(command[1]).is_file()
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{found.name}`" in readme for found in kit.STEPS)


@pytest.mark.slow
def test_a_dry_run_of_a_step(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [
        sys.executable,
        str(FOLDER / "kit.py"),
        "--dry",
        "--only",
        "network",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (tmp_path / "network.log").read_text()
    report = json.loads((tmp_path / "network.json").read_text())
    assert set(report["ties"].values()) == {0}
    assert report["parity"]["cpu fp32"] == 0
    assert "| network | passed |" in done.stdout
