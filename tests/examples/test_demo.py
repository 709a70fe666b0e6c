"""``make demo``: the first thing that a new user runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_runs_tiled_and_shows_a_matte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tiled (2 windows) against whole" in done.stdout
    sheet = cv2.imread(str(tmp_path / "out" / "demo" / "side_by_side.png"))
    assert sheet is not None
    assert sheet.shape == (880, 1360, 3)
    assert sheet[440:, :680].std() > 50
