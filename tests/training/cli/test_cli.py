"""``dim-train`` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dim.images import read_alpha

RECIPE = Path(__file__).parents[3] / "training" / "configs" / "compact.toml"
QUICK = (
    "steps=2 warmup_steps=0 decay_steps=0 batch=1 precision=fp32 "
    "data.kind=procedural data.size=64 data.workers=0"
)


def _dim_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from dim_training.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_fit_then_score(tmp_path: Path) -> None:
    done = _dim_train("fit", RECIPE, "-o", tmp_path / "run", "--set", *QUICK.split())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_samples_are_a_folder_of_pairs(tmp_path: Path) -> None:
    options = ("--count", 2, "--set", "data.kind=procedural", "--set", "data.size=64")
    done = _dim_train("samples", RECIPE, "-o", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    for folder in ("images", "trimaps", "alphas"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["0000.png", "0001.png"]
    trimap, alpha = (read_alpha(tmp_path / folder / "0000.png") for folder in ("trimaps", "alphas"))
    assert trimap.shape == alpha.shape == (64, 64)
    assert set(np.unique(trimap)) <= {0, 128, 255}
    assert (alpha[trimap == 255] == 255).all()
    assert (alpha[trimap == 0] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.toml"), "cannot find the recipe none.toml"),
        (("fit", RECIPE, "--set", "stepz=3"), "did you mean steps?"),
        (("fit", RECIPE), "data.root"),
        (("test", "none.safetensors", "--data", "."), "no such file"),
    ],
)
def test_errors_have_no_traceback(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    done = _dim_train(*arguments, *(("-o", tmp_path / "run") if arguments[0] == "fit" else ()))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_init_beside_resume_is_refused(tmp_path: Path) -> None:
    """A resumed run has its own weights: those of ``--init`` would silently not be read."""
    done = _dim_train("fit", RECIPE, "-o", tmp_path, "--resume", "--init", "none.safetensors")
    assert done.returncode == 2
    assert "--init is not read" in " ".join(done.stderr.replace("│", " ").split())
