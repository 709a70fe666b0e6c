"""A tiny run into the named folder, resumed if it can be; prints a line when it begins."""

from __future__ import annotations

import sys
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
    print("begins", flush=True)
    trainer.fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
