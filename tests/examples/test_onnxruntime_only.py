"""The example without this toolkit gives the alpha of the toolkit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.bit_depth import quantise
from dim_runtime import Matting
from dim_runtime.backends.open import default_model
from dim_runtime.images.samples import lemur, sample_paths

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnxruntime_only.py"


def test_it_gives_the_alpha_of_the_runtime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    output = tmp_path / "alpha.png"
    command = [sys.executable, str(EXAMPLE), str(default_model()), *map(str, sample_paths()), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = cv2.imread(str(output), cv2.IMREAD_GRAYSCALE)
    with Matting(threads=1) as matting:
        expected = quantise(matting(*lemur()), 8)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert (difference > 1).mean() < 1e-3  # an arg-max may flip between two numbers of threads
    assert difference.mean() < 0.05


def test_it_needs_three_packages_and_is_short() -> None:
    lines = EXAMPLE.read_text().splitlines()
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert imports == {"sys", "cv2", "numpy", "onnxruntime"}
    code = "\n".join(lines).partition('"""')[2].partition('"""')[2].splitlines()
    assert len([line for line in code if line.strip()]) <= 22


@pytest.mark.parametrize("name", ["onnxruntime_only.py", "triton_client.py"])
def test_a_call_without_arguments_gives_the_usage(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE.with_name(name))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python {name} ")
