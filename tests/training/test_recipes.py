"""The project's recipes from the command line, on procedural data."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dim import checkpoint

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
PROCEDURAL = ("data.kind=procedural", "data.workers=1", "vgg=none", "keep_every=none")


def _fit(recipe: str, output: Path, *overrides: str, init: Path | None = None) -> list[float]:
    """Run a recipe; returns the losses of its log."""
    command = [
        sys.executable,
        "-m",
        "dim_training.cli",
        "fit",
        str(CONFIGS / f"{recipe}.toml"),
        "-o",
        str(output),
    ]
    command += ["--init", str(init)] if init else []
    done = subprocess.run(
        [*command, "--set", *PROCEDURAL, *overrides], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (output / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / "best.safetensors").state_dict


@pytest.mark.slow
def test_the_published_recipes_chained(tmp_path: Path) -> None:
    short = ("steps=2", "log_every=2", "data.size=96")
    folders = [tmp_path / name for name in ("stage1", "stage2", "stage3", "online")]
    _fit("stage1", folders[0], *short)
    _fit("stage2", folders[1], *short, init=folders[0] / "best.safetensors")
    _fit("stage3", folders[2], *short, init=folders[1] / "best.safetensors")
    _fit("stage1_online_merge", folders[3], *short)

    one, two, three, _ = (_weights(folder) for folder in folders)
    assert (len(one), len(two), len(three)) == (42, 50, 50)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(two[key], three[key]) for key in one)
    assert any(two[key].abs().max() > 0 for key in two if key.endswith("refine_pred.bias"))


@pytest.mark.slow
def test_the_loss_of_the_compact_recipe_falls(tmp_path: Path) -> None:
    # The recipe's own decay would begin before such a short run does.
    losses = _fit(
        "compact",
        tmp_path,
        "steps=200",
        "warmup_steps=100",
        "decay_steps=0",
        "data.weights=none",
        "data.tinted=none",
        # A seventh of the recipe's pixels: half a minute on one core.
        "data.size=96",
        "data.crop_sides=[64, 96, 128]",
    )
    print(f"mean loss of the first and last 50 of 200 steps: {losses[0]:.4f}, {losses[-1]:.4f}")
    assert losses[-1] < 0.95 * losses[0]
