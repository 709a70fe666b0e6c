"""Parts of an ONNX file: the same numbers as the whole, and errors for a graph that was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim.contract import NetworkConfig
from dim.contract.cropping import NO_MARGINS, Margins, output_margins
from dim_runtime.artefacts.onnx_cut import (
    ALPHA,
    ESTIMATE,
    IMAGE_AND_TRIMAP,
    crop_limits,
    cropping_graph,
    cut,
    propagation_graph,
)
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import inside
from dim_runtime.backends.open import default_model
from dim_runtime.errors import ArtefactError

onnxruntime = pytest.importorskip("onnxruntime")


def session(model: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)


@pytest.fixture
def window() -> dict[str, Any]:
    draw = np.random.default_rng(3)
    image = draw.integers(0, 256, (1, 448, 416, 3), np.uint8)
    return {"image": image, "trimap": draw.choice(np.array([0, 128, 128, 255], np.uint8), image.shape[:3])}


@pytest.fixture
def network() -> NetworkConfig:
    return read_metadata(default_model()).network


def test_both_phases_compute_what_the_file_computes(window: dict[str, Any], network: NetworkConfig) -> None:
    whole = session(default_model()).run(["alpha"], window)[0]
    limits = crop_limits(network, NO_MARGINS)
    refined, trust = session(cropping_graph(default_model(), network, phases=True)).run(None, window | limits)
    propagation = session(propagation_graph(default_model()))
    alpha = propagation.run(None, window | {"refined": refined, "trust": trust})[0]
    np.testing.assert_array_equal(alpha, whole)


@pytest.mark.parametrize(
    "margins",
    [Margins(192, 224, 0, 0), Margins(200, 232, 72, 40), Margins(120, 8, 176, 112), Margins(24, 80, 88, 56)],
)
def test_what_margins_leave_is_the_same(
    window: dict[str, Any], network: NetworkConfig, margins: Margins
) -> None:
    """Also where the core begins and ends within the values of deep levels."""
    graph = session(cropping_graph(default_model(), network, phases=True))
    whole = graph.run(None, window | crop_limits(network, NO_MARGINS))
    found = graph.run(None, window | crop_limits(network, margins))
    beyond = output_margins(network, margins)
    for part, complete in zip(found, whole, strict=True):
        assert part.shape[2:] == (
            448 - margins.top - margins.bottom + beyond.top + beyond.bottom,
            416 - margins.left - margins.right + beyond.left + beyond.right,
        )
        np.testing.assert_allclose(inside(part, beyond), inside(complete, margins), rtol=0, atol=2e-6)


def test_the_weights_are_in_one_part_only(network: NetworkConfig) -> None:
    size = default_model().stat().st_size
    assert len(cropping_graph(default_model(), network, phases=True)) > 0.95 * size
    assert len(propagation_graph(default_model())) < 0.02 * size


def test_the_alpha_of_a_cut_file_is_still_there(window: dict[str, Any]) -> None:
    found = session(cut(default_model(), IMAGE_AND_TRIMAP, ALPHA)).run(None, window)[0]
    np.testing.assert_array_equal(found, session(default_model()).run(["alpha"], window)[0])


@pytest.mark.parametrize("name", ["refined", "trust", "crop_switches_3_ends", "crop_refiner_starts"])
def test_a_value_that_is_missing_is_named(tmp_path: Path, name: str, network: NetworkConfig) -> None:
    path = tmp_path / "changed.onnx"
    other = "X" + name[1:]
    path.write_bytes(default_model().read_bytes().replace(name.encode(), other.encode()))
    with pytest.raises(ArtefactError, match=rf"(?s)no .*{name}.*dim-export onnx"):
        cropping_graph(path, network, phases=True)


def test_an_output_that_no_node_computes_is_an_error() -> None:
    with pytest.raises(ArtefactError, match="no nothing"):
        cut(default_model(), IMAGE_AND_TRIMAP, {"nothing": ESTIMATE["trust"]})
