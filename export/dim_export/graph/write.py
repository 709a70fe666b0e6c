"""A graph and its metadata document as one file."""

from __future__ import annotations

from pathlib import Path

from onnxscript import ir

import dim
from dim.contract import METADATA_KEY, ArtefactMetadata


def write(onnx_model: ir.Model, metadata: ArtefactMetadata, path: Path) -> None:
    """One file, weights inside, the metadata document under the key ``dim``."""
    onnx_model.metadata_props[METADATA_KEY] = metadata.to_json()
    onnx_model.producer_name, onnx_model.producer_version = "dim-export", dim.__version__
    path.write_bytes(ir.to_proto(onnx_model).SerializeToString())
