"""Train the three published stages at full width, one after the other, within a time limit; resumable.

usage: python tools/gpu/train_full_width.py FOLDER [--minutes 25] [--device cuda] [--dry]

Stages that are finished are skipped, an interrupted one resumes from its last state: repeat the same command,
on another day or machine, until it reports that all three are finished. Foregrounds are drawn: nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

FIT = "from dim_training.cli import main; main()"
FINAL, STATE = "final.safetensors", "last"
RECIPE = """\
steps = {steps}
batch = {batch}
learning_rate = 1e-4
warmup_steps = {warmup}
decay_steps = {decay}
precision = "bf16"
clip = 1.0
checkpoint_every = {checkpoint}
log_every = 50
[network]
stage = {stage}
width = {width}
[data]
kind = "procedural"
compose = "device"
photometric = true
crop_sides = {crops}
size = {size}
workers = {workers}
"""


class Size(NamedTuple):
    """Batch, sides of crops in pixels, loader processes, and steps of the three stages."""

    width: float
    batch: int
    size: int
    crops: tuple[int, ...]
    workers: int
    steps: tuple[int, int, int]


H100 = Size(1.0, 32, 320, (320, 480), 14, (3000, 500, 1500))
DRY = Size(0.0625, 2, 64, (64,), 0, (4, 2, 2))
GRACE_S = 120
"""Seconds for a run to stop by itself after SIGINT."""


def main() -> int:
    """Train what is not finished; return 0 when all stages are, 3 when time ran out, else the run's code."""
    given = parse()
    ends = time.monotonic() + 60 * given.minutes
    for stage in (1, 2, 3):
        folder = given.folder / f"stage{stage}"
        if (folder / FINAL).exists():
            print(f"stage {stage} is finished")
            continue
        code = fit(given, stage, folder, ends)
        if code is None:
            print(f"stage {stage} is not finished: repeat the command to resume")
            return 3
        if code:
            return code
    print(f"all stages are finished: {given.folder / 'stage3' / FINAL}")
    return 0


def fit(given: argparse.Namespace, stage: int, folder: Path, ends: float) -> int | None:
    """Start or resume a stage; return its exit code, or None if the time ran out."""
    size = DRY if given.dry else H100
    steps = size.steps[stage - 1]
    recipe = given.folder / f"stage{stage}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(
        RECIPE.format(
            stage=stage, steps=steps, warmup=steps // 20, decay=steps // 2, checkpoint=max(1, steps // 20),
            width=size.width, batch=size.batch, size=size.size, crops=list(size.crops), workers=size.workers,
        ),
        encoding="utf-8",
    )  # fmt: skip
    command = [sys.executable, "-c", FIT, "fit", str(recipe), "-o", str(folder), "--device", given.device]
    if (folder / STATE).exists():
        command.append("--resume")
    elif stage > 1:
        command += ["--init", str(given.folder / f"stage{stage - 1}" / FINAL)]
    process = subprocess.Popen(command)
    try:
        return process.wait(max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(GRACE_S)
        return None


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the three published stages at full width.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="a tiny network and a few steps")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
