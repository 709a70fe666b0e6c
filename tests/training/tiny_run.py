"""Tiny runs into folders that standard input names, resumed if they can be, each in a fork of this process.

A fork needs no imports, which would take longer than the run. It prints ``begins PID`` when the run begins;
this process prints ``ended STATUS`` when the fork ends.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import torch

from dim import files
from dim.contract import NetworkConfig
from dim_training.build import build_run
from dim_training.config import DataConfig, TrainConfig
from dim_training.trainer import Trainer


def main(output: Path) -> None:
    torch.set_num_threads(1)
    config = TrainConfig(
        network=NetworkConfig(width=0.125, batch_norm=True),
        data=DataConfig(crop_sides=(64,), size=64, workers=0),
        steps=30,
        batch=1,
        learning_rate=1e-3,
        decay_steps=10,
        ema=0.9,
        checkpoint_every=2,
        keep_every=5,
        log_every=1,
    )
    resume = files.current_folder(output / "last") is not None
    trainer = Trainer(build_run(config, output, resume=resume, overwrite=not resume, device="cpu"))
    print("begins", os.getpid(), flush=True)
    trainer.fit()


def fork(output: Path) -> int:
    """Run in a fork; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            main(output)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print("ended", fork(Path(line.rstrip("\n"))), flush=True)
