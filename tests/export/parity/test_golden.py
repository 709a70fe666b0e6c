"""The full network, exported, against the reference implementation's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.network import DIM
from dim_export.graph.torch_backend import TorchBackend
from dim_export.onnx_export.export import export
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.matting import Matting


@pytest.fixture(scope="module")
def golden_artefact(golden_weights: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    model = DIM(NetworkConfig(stage=3))
    model.load_state_dict(golden_weights)
    checkpoint.save(model, folder / "golden.safetensors")
    export(folder / "golden.safetensors", folder / "golden.onnx")
    return folder / "golden.onnx"


@pytest.fixture(scope="module")
def engine(golden_artefact: Path) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(golden_artefact)


@pytest.mark.parametrize("name", ["A32_forward", "A64_forward"])
def test_alpha_of_unknown_pixels(engine: OnnxRuntimeBackend, golden: Any, name: str) -> None:
    arrays = golden(name)
    trimap = arrays["trimap"]
    alpha = engine.run(np.ascontiguousarray(arrays["bgr"][..., ::-1]), trimap)
    unknown = (trimap != 0) & (trimap != 255)
    assert unknown.any()
    np.testing.assert_allclose(alpha[unknown], arrays["pred_refine"][:, 0][unknown], rtol=0, atol=2e-5)


def _gray_levels_apart(matting: Matting, arrays: Any, name: str) -> int:
    rgb = np.ascontiguousarray(arrays["bgr"][..., ::-1])
    found = np.rint(matting(rgb, arrays["trimap"]) * 255)
    return int(np.abs(found - arrays[name].astype(np.float32)).max())


def test_the_whole_path_of_an_odd_size(engine: OnnxRuntimeBackend, golden: Any) -> None:
    arrays = golden("B_predict_61x45")
    assert _gray_levels_apart(Matting.from_backend(engine), arrays, "stage3_u8") <= 1


def test_the_whole_path_in_stage_1(golden_weights: dict[str, Any], golden: Any) -> None:
    model = DIM(NetworkConfig(stage=1))
    model.load_state_dict({key: value for key, value in golden_weights.items() if "refiner" not in key})
    matting = Matting.from_backend(TorchBackend(model))
    assert _gray_levels_apart(matting, golden("B_predict_61x45"), "stage1_u8") <= 1
