"""The models of the package: found by name, each made of the weights beside it, and all different."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from dim.arrays import Float32
from dim.errors import InputError
from dim.files import sha256
from dim.images.files import read_alpha
from dim_runtime import Matting
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import SHIPPED_MODELS, default_model, model_path
from dim_runtime.batch.run import fingerprint
from dim_runtime.cli.app import app
from dim_runtime.images.samples import lemur, sample_paths
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.settings import MattingOptions


@pytest.fixture(scope="module")
def alphas() -> dict[str, Float32]:
    """Return the alpha of the sample photograph by each model."""
    pytest.importorskip("onnxruntime")
    found = {}
    for name in SHIPPED_MODELS:
        with Matting(name, threads=1) as matting:
            found[name] = matting(*lemur())
    return found


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_an_artefact_is_made_of_the_weights_beside_it(name: str) -> None:
    path = model_path(name)
    metadata = read_metadata(path)
    weights = path.with_name(f"{name.removesuffix('-int8')}.safetensors")
    assert metadata.checkpoint_sha256 == sha256(weights)
    assert metadata.precision == ("int8" if name.endswith("-int8") else "fp32")
    assert {"command", "licence", "steps"} <= metadata.provenance.keys()


def test_the_embedded_model_is_the_first(alphas: dict[str, Float32]) -> None:
    assert model_path(SHIPPED_MODELS[0]) == default_model()
    with Matting(threads=1) as matting:
        np.testing.assert_array_equal(matting(*lemur()), alphas[SHIPPED_MODELS[0]])


def test_the_models_differ_and_agree_on_the_object(alphas: dict[str, Float32]) -> None:
    unknown = lemur()[1] == 128
    weights = [name for name in SHIPPED_MODELS if not name.endswith("-int8")]
    for first, second in combinations(weights, 2):
        assert 0 < np.abs(alphas[first] - alphas[second])[unknown].mean() < 0.1
    for name in set(SHIPPED_MODELS) - set(weights):
        exact = alphas[name.removesuffix("-int8")]
        assert 0 < np.abs(alphas[name] - exact)[unknown].mean() < 0.01


def test_a_command_takes_the_name(tmp_path: Path, alphas: dict[str, Float32]) -> None:
    out = tmp_path / "alpha.png"
    arguments = ["run", *sample_paths(), "-o", out, "--model", "dim-compact", "--threads", 1]
    app([str(argument) for argument in arguments], standalone_mode=False)
    assert np.abs(read_alpha(out) / 255 - alphas["dim-compact"]).max() <= 0.5 / 255 + 1e-6


def test_a_batch_compares_a_named_model_by_its_content() -> None:
    named, unnamed = (fingerprint(MattingOptions(model=name), OutputSpec()) for name in ("dim-compact", None))
    assert named["model"] == sha256(model_path("dim-compact"))
    assert unnamed["model"] == sha256(default_model())


def test_an_unknown_name_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"an \.onnx or \.engine file, or one of dim-clean, dim-clean-int8"):
        Matting("dim-klean")


def test_what_is_no_name_is_a_path() -> None:
    assert model_path("folder/dim-compact") == Path("folder/dim-compact")
    with pytest.raises(InputError, match=f"{', '.join(SHIPPED_MODELS)}; None for the embedded model"):
        model_path(3)
