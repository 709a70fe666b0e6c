"""Training at full width: stages follow each other, resume, and stop with their state saved."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dim import files

FOLDER = Path(__file__).parents[2] / "tools" / "gpu"
FINISHES = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "final.safetensors").touch()
(folder / "command.json").write_text(json.dumps(sys.argv[1:]))
"""
WAITS_FOR_A_SIGNAL = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getppid(), signal.SIGTERM)
raise SystemExit(128 + signal.sigwait([signal.SIGTERM]))
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("train_full_width")


def train(
    tool: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, fit: str, *options: str, minutes: float = 5
) -> int:
    """Run the tool with a stand-in for ``dim-train``; return its exit code."""
    monkeypatch.setattr(tool, "FIT", fit)
    monkeypatch.setattr(sys, "argv", ["tool", str(folder), "--dry", "--minutes", str(minutes), *options])
    code = tool.main()
    assert isinstance(code, int)
    return code


def commands(folder: Path) -> list[list[str]]:
    """Return the options of each stage after its recipe and folder."""
    found = [json.loads((folder / f"stage{stage}" / "command.json").read_text()) for stage in (1, 2, 3)]
    return [command[command.index("--device") + 2 :] for command in found]


def test_each_stage_starts_from_the_one_before(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--vgg", "vgg.npz", "--set", "seed=7")
    assert train(tool, monkeypatch, tmp_path, FINISHES, *options) == 0
    first, second, third = commands(tmp_path)
    # What a run left that ended before its first state is replaced.
    assert first == ["--overwrite", "--set", "seed=7", "vgg=vgg.npz"]
    for number, command in ((1, second), (2, third)):
        weights = str(tmp_path / f"stage{number}" / "final.safetensors")
        assert command == ["--overwrite", "--init", weights, "--set", "seed=7"]


@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_stage_resumes(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    last = tmp_path / "stage2" / "last"
    last.mkdir(parents=True)
    if killed:
        _kill_while_replacing(last, monkeypatch)
        assert not last.exists()
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "final.safetensors").touch()
    (tmp_path / "stage1" / "command.json").write_text(json.dumps(["--device", "cpu"]))
    assert train(tool, monkeypatch, tmp_path, FINISHES) == 0
    assert commands(tmp_path)[1] == ["--resume"]


def _kill_while_replacing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End between the two renames that replace a folder."""
    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        if target == folder:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.put_folder(folder.with_name("new"), folder)


def test_a_signal_reaches_the_run_once(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tool, monkeypatch, tmp_path, WAITS_FOR_A_SIGNAL) == 3
    assert "stage 1 is not finished: repeat the command to resume" in capsys.readouterr().out


def test_a_stage_that_runs_out_of_time_is_asked_to_stop(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tool, monkeypatch, tmp_path, "import signal; signal.pause()", minutes=0) == 3


def test_errors_of_a_run_end_the_tool(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tool, monkeypatch, tmp_path, "raise SystemExit(1)") == 1
    assert not (tmp_path / "stage2").exists()


def test_the_recipes_are_recipes(tool: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dim_training.config import read_config

    given = argparse.Namespace(folder=tmp_path, dry=False, device="cuda", set=[], vgg=None)
    for stage in (1, 2, 3):
        config = read_config(tool.write_recipe(given, stage))
        assert (config.network.stage, config.checkpoint_seconds) == (stage, 120)
        assert config.steps == tool.H100.steps[stage - 1]
