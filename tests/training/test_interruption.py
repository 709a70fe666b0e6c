"""Killing a run at any moment leaves nothing unreadable, and the resumed run ends in the same bits."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from dim import checkpoint, files

SCRIPT = Path(__file__).with_name("tiny_run.py")
KILLS = 20


class _Runs:
    """The process that runs each tiny run in a fork."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, output: Path) -> int:
        """Start a run; returns its process number as soon as it begins."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{output}\n")
        self._process.stdin.flush()
        return self._number("begins")

    def wait(self) -> int:
        """Return the exit status of the run that was started last."""
        return self._number("ended")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _number(self, word: str) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found, number = line.split()
        assert found == word, line
        return int(number)


@pytest.fixture
def runs() -> Iterator[_Runs]:
    process = _Runs()
    yield process
    process.end()


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
def test_twenty_kills_change_nothing(runs: _Runs, tmp_path: Path) -> None:
    runs.start(tmp_path / "whole")
    began = time.perf_counter()
    assert runs.wait() == 0
    longest = 0.25 * (time.perf_counter() - began)
    delays, kills, ended = random.Random(0), 0, 0
    while kills < KILLS:
        parts = tmp_path / f"parts-{ended}"
        process = runs.start(parts)
        time.sleep(delays.uniform(0, longest))
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        killed = runs.wait() != 0
        kills += killed
        if not killed:
            # It ended between two signals: the next ones meet a new run.
            ended += 1
            _require_same(tmp_path / "whole", parts)
        _require_readable(parts)
    runs.start(parts)
    assert runs.wait() == 0
    _require_same(tmp_path / "whole", parts)


def _require_same(whole: Path, parts: Path) -> None:
    for name in ("final", "step-0000005", "step-0000030"):
        one, other = (checkpoint.read(run / f"{name}.safetensors").state_dict for run in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)
    rows = [(run / "metrics.csv").read_text().splitlines() for run in (whole, parts)]
    assert len(rows[0]) == len(rows[1]) == 31
