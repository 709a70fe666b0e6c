"""Trains a recipe and leaves the last step's gradients: run alone, or by torchrun in two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dim_training.build import build_run
from dim_training.config import read_config
from dim_training.trainer import Trainer


def main(recipe: str, output: str, init: str, *overrides: str) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(
        build_run(read_config(Path(recipe), overrides), Path(output), init=Path(init), device="cpu")
    )
    trainer.fit()
    if trainer.accelerator.is_main_process:
        gradients = {name: p.grad for name, p in trainer.run.model.named_parameters()}
        torch.save(gradients, Path(output) / "gradients.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
