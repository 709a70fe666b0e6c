"""What other tools make of an artefact computes what the artefact computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dim_runtime.images.samples import lemur
from dim_runtime.matting import default_model


def test_openvino_s_half_precision_weights_keep_the_alpha(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    openvino.save_model(core.read_model(default_model()), tmp_path / "half.xml")  # fp16 weights by default
    image, trimap = (array[None, 64:224, 192:384] for array in lemur()[:2])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    alphas = [
        core.compile_model(path, "CPU", options)({"image": image, "trimap": trimap})["alpha"]
        for path in (default_model(), tmp_path / "half.xml")
    ]
    difference = np.abs(alphas[1] - alphas[0])
    assert (difference[trimap != 128] == 0).all()
    assert 0 < difference[trimap == 128].mean() < 1e-3
