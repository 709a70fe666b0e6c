"""Two processes with a batch of one train as one process with a batch of two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dim import checkpoint
from dim.network import DIM
from dim_training.devices import open_accelerator

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
SCRIPT = Path(__file__).with_name("two_processes.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def _train(output: Path, init: Path, *overrides: str, processes: int) -> None:
    launcher = TORCHRUN if processes == 2 else ()
    command = [sys.executable, *launcher, str(SCRIPT), str(CONFIGS / "stage1.toml"), str(output), str(init)]
    done = subprocess.run(
        [*command, "data.kind=procedural", "data.workers=0", *overrides],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _both(tmp_path: Path, *overrides: str) -> tuple[Path, Path]:
    init = tmp_path / "init.safetensors"
    _train(tmp_path / "one", init, "batch=2", *overrides, processes=1)
    _train(tmp_path / "two", init, "batch=1", *overrides, processes=2)
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.slow
def test_the_gradients_of_the_first_step_agree(tmp_path: Path, live_model: Callable[..., DIM]) -> None:
    checkpoint.save(live_model(stage=1, width=1.0), tmp_path / "init.safetensors")
    folders = _both(tmp_path, "steps=1")
    one, two = (torch.load(folder / "gradients.pt", weights_only=True) for folder in folders)
    worst = max((_distance(one[name], two[name]), name) for name in one)
    print(f"largest relative difference of a gradient: {worst}")
    assert worst[0] <= 1e-5


@pytest.mark.slow
def test_a_run_of_ten_steps_stays_close(tmp_path: Path, live_model: Callable[..., DIM]) -> None:
    checkpoint.save(live_model(stage=1, width=0.125), tmp_path / "init.safetensors")
    small = ("steps=10", "network.width=0.125", "data.size=64", "data.crop_sides=[96]", "learning_rate=1e-4")
    one, two = (_weights(folder) for folder in _both(tmp_path, *small))
    start = _weights(tmp_path, "init")
    for name in one:
        moved = (one[name] - start[name]).norm()
        assert (one[name] - two[name]).norm() <= 0.05 * moved, name


def _weights(folder: Path, name: str = "final") -> dict[str, Any]:
    return checkpoint.read(folder / f"{name}.safetensors").state_dict


def _distance(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).norm() / one.norm())


def test_processes_wait_a_day_for_the_slowest_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def record(**options: Any) -> Any:
        given.update(options)
        return SimpleNamespace(device=torch.device("cpu"))

    monkeypatch.setattr("accelerate.Accelerator", record)
    open_accelerator("cpu", "fp32")
    (handler,) = given["kwargs_handlers"]
    assert handler.timeout >= timedelta(days=1)
