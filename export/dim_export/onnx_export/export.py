"""Checkpoint -> ONNX artefact: traced graph, metadata, and a file that appears only if it is good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dim import checkpoint
from dim.arrays import WindowShape
from dim.contract import ArtefactMetadata, Precision
from dim.files import atomic_path, sha256
from dim_export.graph.metadata import describe
from dim_export.graph.write import write
from dim_export.onnx_export.precision import Quantisation, lower

Verify = Callable[[Path], None]
"""Looks at a finished file and raises a DimError if it must not be kept."""


def export(
    source: Path,
    target: Path,
    *,
    static_shape: WindowShape | None = None,
    precision: Precision = "fp32",
    quantisation: Quantisation | None = None,
    verify: Verify | None = None,
    command: str = "",
) -> ArtefactMetadata:
    """Export a checkpoint as a single ONNX file.

    Args:
        source: checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        target: the ONNX file; an old one is replaced only by one that passed ``verify``.
        static_shape: N, H, W to freeze; None leaves all three free.
        precision: what the network computes in; inputs and output are the same in all.
        quantisation: for int8: what to calibrate on and which layers stay in float; None takes the defaults.
        verify: called with the finished file under a temporary name; an error leaves no file.
        command: recorded in the metadata.

    Raises:
        CheckpointError: an unreadable checkpoint, or numbers that the precision cannot represent.
        InputError: an impossible shape, an option that does not apply, or unusable calibration pairs.
        DimError: whatever ``verify`` raises.
    """
    contents = checkpoint.read(source)
    model = checkpoint.load(source)
    lowered = lower(model, precision, static_shape=static_shape, quantisation=quantisation)
    metadata = describe(
        model,
        checkpoint_sha256=sha256(source),
        provenance=contents.provenance,
        static_shape=static_shape,
        precision=precision,
        quantisation=lowered.quantisation,
        command=command,
    )
    with atomic_path(target) as temporary:
        write(lowered.graph, metadata, temporary)
        if verify is not None:
            verify(temporary)
    return metadata
