"""``dim-train`` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "training" / "configs" / "compact.toml"
QUICK = "steps=2 batch=1 precision=fp32 data.kind=procedural data.size=64 data.workers=0"


def _dim_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from dim_training.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_fit_then_score(tmp_path: Path) -> None:
    done = _dim_train("fit", RECIPE, "-o", tmp_path / "run", "--set", *QUICK.split())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.toml"), "cannot read the recipe none.toml"),
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
