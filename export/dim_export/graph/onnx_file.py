"""Write a graph and its metadata document as one ONNX file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from onnxscript import ir

import dim
from dim.contract import METADATA_KEY, ArtefactMetadata, Precision, QuantisationInfo, exact_context
from dim.network import DIM, multiply_adds_per_pixel

OLDEST_READERS: dict[Precision, dict[str, str]] = {
    "fp32": {"onnxruntime": "1.14", "tensorrt": "10.0"},
    "fp16": {"onnxruntime": "1.14", "tensorrt": "10.0"},
    "int8": {"onnxruntime": "1.14", "tensorrt": "10.0"},
    "bf16": {"openvino": "2025.1", "tensorrt": "10.6"},
}
"""First releases that read a file of each precision: opset 18 with uint8 inputs, and opset 22 for bf16.
ONNX Runtime has no convolution for bf16 on the CPU."""


def describe(
    model: DIM,
    *,
    checkpoint_sha256: str,
    provenance: dict[str, str] | None = None,
    static_shape: tuple[int, int, int] | None = None,
    precision: Precision = "fp32",
    quantisation: QuantisationInfo | None = None,
    command: str = "",
) -> ArtefactMetadata:
    """Return the metadata of an artefact.

    Args:
        model: the network of the artefact.
        checkpoint_sha256: hexadecimal digest of the checkpoint; empty if there is no file.
        provenance: facts about the training, from the checkpoint.
        static_shape: frozen N, H, W; None if all three are free.
        precision: number format of the convolutions.
        quantisation: record of the calibration, for int8.
        command: command line that repeats the export.
    """
    return ArtefactMetadata(
        network=model.config,
        precision=precision,
        quantisation=quantisation,
        context=exact_context(model.config),
        static_shape=static_shape,
        crops=static_shape is None,
        phases=static_shape is None and bool(model.config.propagation_steps),
        multiply_adds_per_pixel=multiply_adds_per_pixel(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        checkpoint_sha256=checkpoint_sha256,
        provenance=provenance or {},
        versions={"dim-matting": dim.__version__} | {name: version(name) for name in ("torch", "onnxscript")},
        oldest_readers=OLDEST_READERS[precision],
        command=command,
    )


def write(onnx_model: ir.Model, metadata: ArtefactMetadata, path: Path) -> None:
    """Write a model as one file with its weights inside and its metadata under the key ``dim``."""
    onnx_model.metadata_props[METADATA_KEY] = metadata.to_json()
    onnx_model.producer_name, onnx_model.producer_version = "dim-export", dim.__version__
    path.write_bytes(ir.to_proto(onnx_model).SerializeToString())
