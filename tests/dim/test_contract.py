"""Configuration and metadata documents."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dim.contract import (
    SCHEMA_VERSION,
    ArtefactMetadata,
    ContractError,
    NetworkConfig,
    cue_cell,
    exact_context,
    propagation_cells,
    receptive_radius,
)


def _metadata(**changes: Any) -> ArtefactMetadata:
    fields: dict[str, Any] = {
        "network": NetworkConfig(stage=3, width=0.25),
        "precision": "fp32",
        "context": 192,
        "static_shape": (1, 64, 96),
        "multiply_adds_per_pixel": 1,
        "parameters": 2,
        "checkpoint_sha256": "ab",
        "provenance": {"data": "procedural"},
        "versions": {"torch": "2"},
        "oldest_readers": {"onnxruntime": "1.14"},
        "command": "dim-export",
    }
    return ArtefactMetadata(**(fields | changes))


def test_radius_and_context() -> None:
    assert receptive_radius(NetworkConfig(stage=3)) == 189
    assert receptive_radius(NetworkConfig(stage=1)) == 185
    assert exact_context(NetworkConfig(stage=1)) == 160
    assert exact_context(NetworkConfig(stage=3)) == 192
    near, far = (NetworkConfig(stage=3, cue_radii=radii) for radii in ((4, 16), (4, 16, 64)))
    assert receptive_radius(near) == 189 + 16 + 8 + 3
    assert receptive_radius(far) == 189 + 64 + 16 + 7
    assert exact_context(near) == 192
    assert exact_context(far) == 256
    spread = near.model_copy(update={"propagation_steps": (4, 3, 2)})
    assert exact_context(spread) == 320
    assert receptive_radius(spread) == receptive_radius(near) + 128 + 8


def test_propagation_s_cells_end_with_two_pixels() -> None:
    assert propagation_cells((4, 3, 2)) == (8, 4, 2)
    assert propagation_cells(()) == ()


def test_additions_are_told_in_words() -> None:
    config = NetworkConfig(stage=3, cue_radii=(4, 16), propagation_steps=(4, 3, 2))
    assert config.additions == ", cues of radii 4, 16, propagation in 4, 3, 2 steps"
    assert NetworkConfig(stage=3).additions == ""


@pytest.mark.parametrize(
    ("radius", "cell"), [(1, 1), (3, 1), (4, 2), (7, 2), (8, 4), (16, 8), (32, 16), (64, 16), (128, 16)]
)
def test_cells_are_about_half_a_radius_wide(radius: int, cell: int) -> None:
    assert cue_cell(radius) == cell


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 0.3},
        {"width": 3},
        {"stage": 4},
        {"depth": 2},
        {"stage": 1, "cue_radii": (4,)},
        {"stage": 3, "cue_radii": (0,)},
        {"stage": 3, "cue_radii": (4, 129)},
        {"stage": 3, "cue_radii": (4, 15)},
        {"stage": 1, "propagation_steps": (2,)},
        {"stage": 3, "propagation_steps": (2, 0)},
        {"stage": 3, "propagation_steps": (65,)},
        {"stage": 3, "propagation_steps": (1, 1, 1, 1, 1)},
    ],
)
def test_impossible_networks(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NetworkConfig(**wrong)


def test_json_round_trip() -> None:
    metadata = _metadata()
    assert ArtefactMetadata.from_json(metadata.to_json(), source="model.onnx") == metadata


def test_a_newer_document_names_both_versions() -> None:
    text = _metadata(schema_version=SCHEMA_VERSION + 1).to_json()
    with pytest.raises(ContractError, match="made by a newer release") as caught:
        ArtefactMetadata.from_json(text, source="model.onnx")
    assert caught.value.fix is not None


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no json"])
def test_an_unreadable_document_names_the_file(text: str) -> None:
    with pytest.raises(ContractError, match=r"model\.onnx"):
        ArtefactMetadata.from_json(text, source="model.onnx")
