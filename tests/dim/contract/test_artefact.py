"""Metadata documents."""

from __future__ import annotations

from typing import Any

import pytest

from dim.contract import SCHEMA_VERSION, ArtefactMetadata, ContractError, NetworkConfig


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
