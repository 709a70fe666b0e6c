"""Checkpoint -> ONNX artefact: traced graph, metadata, and a file that appears only if it is good."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from onnxscript import ir

import dim
from dim import checkpoint
from dim.contract import METADATA_KEY, ArtefactMetadata, exact_context
from dim.network import DIM, multiply_adds_per_pixel
from dim_export.graph import Shape, trace

OLDEST_READERS = {"onnxruntime": "1.14", "tensorrt": "10.0"}
"""First releases that read opset 18 with uint8 inputs."""

Verify = Callable[[Path], None]
"""Looks at a finished file and raises a DimError if it must not be kept."""


def export(
    source: Path,
    target: Path,
    *,
    static_shape: Shape | None = None,
    verify: Verify | None = None,
    command: str = "",
) -> ArtefactMetadata:
    """Export a checkpoint as a single ONNX file.

    Args:
        source: checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        target: the ONNX file; an old one is replaced only by one that passed ``verify``.
        static_shape: N, H, W to freeze; None leaves all three free.
        verify: called with the finished file under a temporary name; an error leaves no file.
        command: recorded in the metadata.

    Raises:
        CheckpointError, InputError: unreadable checkpoint or impossible shape.
        DimError: whatever ``verify`` raises.
    """
    contents = checkpoint.read(source)
    model = checkpoint.load(source)
    metadata = describe(
        model,
        checkpoint_sha256=checkpoint.sha256(source),
        provenance=contents.provenance,
        static_shape=static_shape,
        command=command,
    )
    onnx_model = trace(model, static_shape=static_shape)
    with appearing(target) as temporary:
        write(onnx_model, metadata, temporary)
        if verify is not None:
            verify(temporary)
    return metadata


def describe(
    model: DIM,
    *,
    checkpoint_sha256: str,
    provenance: dict[str, str] | None = None,
    static_shape: Shape | None = None,
    command: str = "",
) -> ArtefactMetadata:
    """The metadata of the float32 artefact of a network."""
    return ArtefactMetadata(
        network=model.config,
        precision="fp32",
        context=exact_context(model.config),
        static_shape=static_shape,
        multiply_adds_per_pixel=multiply_adds_per_pixel(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        checkpoint_sha256=checkpoint_sha256,
        provenance=provenance or {},
        versions={"dim-matting": dim.__version__} | {name: version(name) for name in ("torch", "onnxscript")},
        oldest_readers=OLDEST_READERS,
        command=command,
    )


def write(onnx_model: ir.Model, metadata: ArtefactMetadata, path: Path) -> None:
    """One file, weights inside, the metadata document under the key ``dim``."""
    onnx_model.metadata_props[METADATA_KEY] = metadata.to_json()
    onnx_model.producer_name, onnx_model.producer_version = "dim-export", dim.__version__
    path.write_bytes(ir.to_proto(onnx_model).SerializeToString())


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary name beside ``target`` that takes its place at the end; an error leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
