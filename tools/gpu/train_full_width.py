"""Train the three published stages at full width, one after the other, within a time limit; resumable.

usage: python tools/gpu/train_full_width.py FOLDER [--minutes 25] [--device cuda] [--dry]
                                            [--vgg FILE] [--set key=value …]

Stages that are finished are skipped, an interrupted one resumes from its last state: repeat the same command,
on another day or machine, until it reports that all three are finished. Ctrl-C and SIGTERM save the state of
the stage in progress. Foregrounds are drawn, and nothing is downloaded, unless --set names other data.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dim.files import current_folder

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
checkpoint_seconds = 120
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
"""Seconds for a run to save its state and stop after a signal."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a run that a signal stopped: after its state was saved, or while the process was starting."""


def main() -> int:
    """Train what is not finished; return 0 when all stages are, 3 if one was stopped, else its exit code."""
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
    """Start or resume a stage; return its exit code, or None if time ran out or a signal stopped it."""
    recipe = write_recipe(given, stage)
    command = [sys.executable, "-c", FIT, "fit", str(recipe), "-o", str(folder), "--device", given.device]
    # The state's folder has another name if a run was killed while it replaced it.
    if current_folder(folder / STATE) is not None:
        command.append("--resume")
    else:
        # A run that ended before its first state left its recipe and its log.
        command.append("--overwrite")
        if stage > 1:
            command += ["--init", str(given.folder / f"stage{stage - 1}" / FINAL)]
    settings = [*given.set, *([f"vgg={given.vgg}"] if given.vgg and stage == 1 else [])]
    command += ["--set", *settings] if settings else []
    with started(command) as process:
        try:
            code = process.wait(max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            stop(process)
            return None
    return None if code in STOPPED else code


def write_recipe(given: argparse.Namespace, stage: int) -> Path:
    """Write a stage's recipe beside the runs, and return its path."""
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
    return recipe


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process; inside the block SIGINT and SIGTERM are sent on to it, each once.

    The process has its own session: a terminal's Ctrl-C reaches it through this function alone.
    """
    process: subprocess.Popen[bytes] | None = None
    waiting: list[int] = []

    def send_on(number: int, _: object = None) -> None:
        if process is None:
            waiting.append(number)
        else:
            process.send_signal(number)

    earlier = {number: signal.signal(number, send_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, start_new_session=True)
        for number in waiting:
            send_on(number)
        yield process
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Let a run save its state and end; after GRACE_S seconds it is killed, and an earlier state is whole."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the three published stages at full width.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--vgg", type=Path, help="ImageNet's VGG-16 for stage 1; random filters without it")
    parser.add_argument("--set", nargs="*", default=[], help="settings of all stages: data.root=FOLDER …")
    parser.add_argument("--dry", action="store_true", help="a tiny network and a few steps")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
