"""Fixtures that several packages' tests share: the golden data, and weights that keep signals alive."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Arrays = dict[str, npt.NDArray[Any]]

_DECONVOLUTIONS = ("deconv5_1", "deconv4_1", "deconv3_1", "deconv2_1", "deconv1_1")
_LAST_LAYERS = ("deconv1", "refine_pred")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for tests that are not run usually."""
    parser.addoption("--bench", action="store_true", help="run the tests that measure time")
    parser.addoption("--servers", metavar="PYTHON", help="run the tests of real servers, which this has")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip measurements of time, and tests of real servers, unless they are requested."""
    reasons = {"bench": "measures time: --bench", "servers": "starts real servers: make test-servers"}
    for marker, reason in reasons.items():
        if not config.getoption(f"--{marker}"):
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the project's shared folder beside the repository: golden data, photographs."""
    folder = Path(__file__).parents[1].parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(f"the shared folder with the golden data is not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Arrays]:
    """Return a function that reads one of the golden files by its stem."""

    def read(stem: str) -> Arrays:
        with np.load(shared / "golden" / f"{stem}.npz") as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def golden_info(shared: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((shared / "golden" / "golden_info.json").read_text())
    return info


@pytest.fixture(scope="session")
def golden_weights(golden_info: dict[str, Any]) -> dict[str, Any]:
    """Return the 50 tensors behind the golden data, drawn again and compared with their checksums."""
    torch = pytest.importorskip("torch")
    draw = np.random.RandomState(20200605)
    shapes: list[tuple[str, list[int]]] = golden_info["state_dict"]
    arrays = {key: _drawn(draw, key, tuple(shape)) for key, shape in shapes}
    for key, expected in golden_info["weights_sha256"].items():
        assert hashlib.sha256(arrays[key].tobytes()).hexdigest() == expected, key
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


@pytest.fixture(scope="session")
def live_model() -> Callable[..., Any]:
    """Return a function that makes a small network whose random weights keep signals alive to the last layer.

    Xavier weights, which a new DIM has, shrink the signal so far that alpha is 0.5 nearly everywhere.
    """
    torch = pytest.importorskip("torch")
    from dim.contract import NetworkConfig
    from dim.network import DIM

    def make(
        stage: int = 3,
        width: float = 0.125,
        batch_norm: bool = False,
        seed: int = 0,
        cue_radii: tuple[int, ...] = (),
        propagation_steps: tuple[int, ...] = (),
        propagates_light: bool = False,
        hardens_ends: bool = False,
        lifts_shadows: bool = False,
        sharpens: bool = False,
    ) -> Any:
        config = NetworkConfig(
            stage=stage,
            width=width,
            batch_norm=batch_norm,
            cue_radii=cue_radii,
            propagation_steps=propagation_steps,
            propagates_light=propagates_light,
            hardens_ends=hardens_ends,
            lifts_shadows=lifts_shadows,
            sharpens=sharpens,
        )
        model = DIM(config)
        draw = np.random.default_rng(seed)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.from_numpy(_live(draw, key, tuple(value.shape))))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def unpropagated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint: the embedded network without its propagation.

    That takes from logits where alpha is clear, and hardly how clear: it hides their scale.
    """
    pytest.importorskip("torch")
    from dim import checkpoint
    from dim.network import DIM
    from dim_runtime.backends.open import default_model

    embedded = checkpoint.load(default_model().with_suffix(".safetensors"))
    assert embedded.config.propagation_steps
    without: dict[str, object] = {"propagation_steps": (), "propagates_light": False, "hardens_ends": False}
    model = DIM(embedded.config.model_copy(update=without))
    weights = embedded.state_dict()
    for key in ("refiner.refine_pred.weight", "refiner.refine_pred.bias"):
        weights[key] = weights[key][:1]
    model.load_state_dict(weights)
    path = tmp_path_factory.mktemp("unpropagated") / "unpropagated.safetensors"
    checkpoint.save(model.eval(), path)
    return path


def _drawn(
    draw: np.random.RandomState | np.random.Generator, key: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    if not key.endswith("weight"):
        return draw.uniform(-0.05, 0.05, shape).astype(np.float32)
    scale = math.sqrt(_gain(key)) / math.sqrt(math.prod(shape[1:]))
    return (draw.standard_normal(shape) * scale).astype(np.float32)


def _gain(key: str) -> float:
    """He's, with four times as much after an unpooling, where three of four values are zero."""
    layer = key.split(".")[-2]
    return 8 if layer in _DECONVOLUTIONS else 1 if layer in _LAST_LAYERS else 2


def _live(draw: np.random.Generator, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if len(shape) == 1 and key.endswith(("weight", "running_var")):
        return draw.uniform(0.8, 1.25, shape).astype(np.float32)
    return _drawn(draw, key, shape)


@pytest.fixture(scope="session")
def live_checkpoint(live_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a small stage-3 network with batch norm."""
    from dim import checkpoint

    path = tmp_path_factory.mktemp("live") / "live.safetensors"
    checkpoint.save(live_model(batch_norm=True), path, provenance={"data": "random"})
    return path


@pytest.fixture(scope="session")
def live_artefact(live_checkpoint: Path) -> Path:
    """Return the ONNX artefact of :func:`live_checkpoint`."""
    pytest.importorskip("onnxscript")
    from dim_export.onnx_export.export import export

    path = live_checkpoint.with_suffix(".onnx")
    export(live_checkpoint, path, command="a test")
    return path
