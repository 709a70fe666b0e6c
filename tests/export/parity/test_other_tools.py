"""What other tools make of an artefact computes what the artefact computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dim_runtime import Matting
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.errors import ChangedGraphWarning
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


@pytest.mark.parametrize(("engine", "tolerance"), [("onnxruntime", 1e-5), ("openvino", 1e-3)])
def test_onnxslim_keeps_the_alpha_and_the_metadata(tmp_path: Path, engine: str, tolerance: float) -> None:
    onnx, onnxslim = pytest.importorskip("onnx"), pytest.importorskip("onnxslim")
    pytest.importorskip("onnxruntime")
    pytest.importorskip(engine)
    slim = onnxslim.slim(str(default_model()))
    # ONNX Runtime Web's WebGPU has buffers for so many outputs of a node.
    assert max(len(node.output) for node in slim.graph.node) <= 4
    onnx.save(slim, tmp_path / "slim.onnx")
    assert read_metadata(tmp_path / "slim.onnx") == read_metadata(default_model())
    image, trimap = (array[64:224, 192:384] for array in lemur()[:2])
    ours = Matting(threads=1)(image, trimap)
    with pytest.warns(ChangedGraphWarning, match="more work"):
        slimmed = Matting(tmp_path / "slim.onnx", backend=engine)
    with slimmed:
        np.testing.assert_allclose(slimmed(image, trimap), ours, atol=tolerance)
