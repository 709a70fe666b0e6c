"""A small network against stored numbers: no change of the input, the layers or the export goes unnoticed."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dim import checkpoint
from dim.network import normalise
from dim_export.onnx_export.export import export
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.matting import Matting

TOLERANCE = 5e-4
"""Of float32: ten times what PyTorch's rounding changes, and a hundredth of what a wrong input changes."""


def _module() -> Any:
    spec = spec_from_file_location("golden_make", Path(__file__).with_name("make.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _module()


class Vectors(NamedTuple):
    """Image, uint8 H, W, 3; trimap, uint8 H, W; alpha, float32 H, W."""

    image: np.ndarray
    trimap: np.ndarray
    alpha: np.ndarray


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    with np.load(make.VECTORS) as arrays:
        return Vectors(**arrays)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    checkpoint.save(make.network(), folder / "small.safetensors")
    export(folder / "small.safetensors", folder / "small.onnx")
    return folder / "small.onnx"


def test_the_stored_picture_is_the_drawn_one(vectors: Vectors) -> None:
    image, trimap = make.picture()
    # Functions such as sine may differ in the last bit between machines, and so may truncation.
    assert np.abs(image.astype(int) - vectors.image).max() <= 1
    np.testing.assert_array_equal(trimap, vectors.trimap)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, TOLERANCE)])
def test_pytorch(vectors: Vectors, dtype: torch.dtype, tolerance: float) -> None:
    found = make.alpha_of(make.network(), vectors.image, vectors.trimap, dtype)
    np.testing.assert_allclose(found, vectors.alpha, rtol=0, atol=tolerance)


def test_a_wrong_input_is_noticed(vectors: Vectors) -> None:
    """Colours in another order, another mean or standard deviation: far beyond the tolerance."""
    image, trimap, alpha = vectors
    swapped = make.alpha_of(make.network(), np.ascontiguousarray(image[..., ::-1]), trimap, torch.float32)
    assert np.abs(swapped - alpha).max() > 100 * TOLERANCE
    x = make.network_input(image, trimap, torch.float32)
    for change in (x[:, [0, 1, 2]] * (57.375 / 58.395), x[:, :3] + 0.05):
        with torch.inference_mode():
            found = make.network()(torch.cat([change, x[:, 3:]], 1))[0, 0].numpy()
        assert np.abs(found - alpha).max() > 20 * TOLERANCE


def test_the_artefact(vectors: Vectors, artefact: Path) -> None:
    image, trimap, alpha = vectors
    with Matting(artefact) as matting:
        found = matting(image, trimap)
        np.testing.assert_allclose(found, alpha, rtol=0, atol=TOLERANCE)
        swapped = matting(np.ascontiguousarray(image[..., ::-1]), trimap)
    assert np.abs(swapped - alpha).max() > 100 * TOLERANCE


def test_the_artefact_alone(vectors: Vectors, artefact: Path) -> None:
    """In one window and without anything that the runtime does around a back end."""
    backend = OnnxRuntimeBackend(artefact)
    try:
        found = backend.run(vectors.image[None], vectors.trimap[None])[0]
    finally:
        backend.close()
    np.testing.assert_allclose(found, vectors.alpha, rtol=0, atol=TOLERANCE)


def test_normalise_in_numbers() -> None:
    colours = torch.tensor([255, 100, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    found = normalise(colours, torch.tensor([51], dtype=torch.uint8).view(1, 1, 1, 1)).flatten()
    expected = [(255 - 123.675) / 58.395, (100 - 116.28) / 57.12, (0 - 103.53) / 57.375, 0.2]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert [round(value, 4) for value in found.tolist()] == [2.2489, -0.285, -1.8044, 0.2]
