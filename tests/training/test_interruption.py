"""Killing a run at any moment leaves nothing unreadable, and the resumed run ends in the same bits."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dim import checkpoint, files

SCRIPT = Path(__file__).with_name("tiny_run.py")
KILLS = 20


def _start(output: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def _require_readable(output: Path) -> None:
    for path in output.glob("*.safetensors"):
        checkpoint.load(path)
    if (output / "metrics.csv").exists():
        with (output / "metrics.csv").open() as file:
            assert list(csv.DictReader(file)) is not None
    state = files.current_folder(output / "last")
    if state is not None:
        assert json.loads((state / "state.json").read_text())["step"] > 0


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    process, began = _start(tmp_path / "whole"), time.perf_counter()
    assert process.wait() == 0
    longest = 0.25 * (time.perf_counter() - began)
    delays, kills, ended = random.Random(0), 0, 0
    while kills < KILLS:
        parts = tmp_path / f"parts-{ended}"
        process = _start(parts)
        time.sleep(delays.uniform(0, longest))
        process.kill()
        killed = process.wait() != 0
        kills += killed
        if not killed:
            # It ended between two signals: the next ones meet a new run.
            ended += 1
            _require_same(tmp_path / "whole", parts)
        _require_readable(parts)
    assert _start(parts).wait() == 0
    _require_same(tmp_path / "whole", parts)


def _require_same(whole: Path, parts: Path) -> None:
    for name in ("final", "step-0000005", "step-0000030"):
        one, other = (checkpoint.read(run / f"{name}.safetensors").state_dict for run in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)
    rows = [(run / "metrics.csv").read_text().splitlines() for run in (whole, parts)]
    assert len(rows[0]) == len(rows[1]) == 31
