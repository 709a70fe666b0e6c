"""The rows of a run: those after a resumed state are written again, and damaged lines are dropped."""

from __future__ import annotations

import json
from pathlib import Path

from dim_training.run_log import RunLog


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_after_the_resumed_step_are_written_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 0.5})
    RunLog(tmp_path, tensorboard=False, step=20).write({"step": 30, "loss": 0.25})
    assert _steps(tmp_path) == [10, 20, 30]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[-1].startswith("30,")


def test_damaged_lines_of_both_files_are_dropped(tmp_path: Path) -> None:
    RunLog(tmp_path, tensorboard=False).write({"step": 10, "loss": 0.5})
    for name in ("metrics.csv", "metrics.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(b'\xff\x00\n[1]\n"step"\n{"step": "11"}\n{"step": 12')
    RunLog(tmp_path, tensorboard=False, step=20)
    assert _steps(tmp_path) == [10]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_a_process_beside_the_main_one_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    RunLog(tmp_path, tensorboard=False, quiet=True)
    assert _steps(tmp_path) == [5]
