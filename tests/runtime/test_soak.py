"""A thousand images in one process: resident memory does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("way", ["call", "map"])
def test_resident_memory_does_not_grow(way: str) -> None:
    """The first hundred images against the last: at most 2 % more."""
    pytest.importorskip("onnxruntime")
    script = Path(__file__).with_name("soak.py")
    command = [sys.executable, str(script), "--images", "1000", "--largest", "64", "--way", way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = map(float, done.stdout.split()[:2])
    assert last <= 1.02 * first
