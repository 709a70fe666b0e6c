"""Export a checkpoint as an ONNX artefact: lower, trace, describe, write, verify.

Modules of int8 are imported when they are needed, so that an fp32 export loads none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from onnxscript import ir

from dim import checkpoint
from dim.arrays import WindowShape
from dim.contract import ArtefactMetadata, Precision, QuantisationInfo
from dim.errors import CheckpointError, InputError
from dim.files import atomic_path, sha256
from dim.network import DIM
from dim.network.folding import fold_batch_norm
from dim_export.graph.onnx_file import describe, write
from dim_export.graph.pixel_blocks import compute_blocks
from dim_export.graph.trace import IR_VERSION, OPSET, trace

if TYPE_CHECKING:
    from dim_export.int8.convert import Quantisation

BF16_OPSET, BF16_IR_VERSION = 22, 10
"""The first operator set whose convolution supports bfloat16, and its version of the file format."""

LARGEST_FP16 = torch.finfo(torch.float16).max
"""65 504, the largest finite float16."""

Verify = Callable[[Path], None]
"""Validates the finished file; raises a DimError to discard it."""


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
        target: ONNX file to write; an existing file is replaced only after ``verify`` passed.
        static_shape: N, H, W to freeze; None leaves all three free.
        precision: number format of the convolutions; inputs and output are the same in all.
        quantisation: options of int8; None takes the defaults.
        verify: called with the finished file under a temporary name; an error leaves no file.
        command: recorded in the metadata.

    Raises:
        CheckpointError: an unreadable checkpoint, or numbers that the precision cannot represent.
        InputError: an impossible shape, an option that does not apply, or unusable calibration pairs.
        DimError: raised by ``verify``.
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


class Lowered(NamedTuple):
    """A graph, and the record of its quantisation for the metadata; None for precisions other than int8."""

    graph: ir.Model
    quantisation: QuantisationInfo | None = None


def lower(
    model: DIM,
    precision: Precision,
    *,
    static_shape: WindowShape | None = None,
    quantisation: Quantisation | None = None,
) -> Lowered:
    """Trace a network in a precision.

    Graphs in fp16 and bf16 store their weights in that type and compute in it. Normalisation, colour cues and
    the operators after the last convolution are in float32. int8 is the float32 graph with Q/DQ nodes.

    Args:
        model: any network; it is not changed.
        precision: number format of the convolutions.
        static_shape: N, H, W to freeze; None leaves all three free.
        quantisation: options of int8; None takes the defaults.

    Raises:
        InputError: an impossible shape, an option that does not apply, or pairs that cannot be used.
        CheckpointError: numbers that the precision cannot represent.
    """
    if precision == "int8":
        from dim_export.int8.convert import Quantisation, to_int8

        return Lowered(*to_int8(model, static_shape, quantisation or Quantisation()))
    if quantisation is not None:
        raise InputError(
            f"cannot calibrate an artefact in {precision}", expected="options of quantisation with int8 only"
        )
    if precision == "fp16":
        _require_fp16(model)
        traced = trace(model, static_shape=static_shape, dtype=torch.float16)
    elif precision == "bf16":
        traced = trace(
            model,
            static_shape=static_shape,
            dtype=torch.bfloat16,
            opset=BF16_OPSET,
            ir_version=BF16_IR_VERSION,
        )
    else:
        traced = trace(model, static_shape=static_shape, opset=OPSET, ir_version=IR_VERSION)
    return Lowered(compute_blocks(traced))


def _require_fp16(model: DIM) -> None:
    """Raise CheckpointError for weights, or activations on the shipped photograph, above 65 504."""
    for name, value in fold_batch_norm(model).state_dict().items():
        largest = float(value.abs().max())
        if largest > LARGEST_FP16:
            raise _too_large_for_fp16(f"{name} with a value of magnitude {largest:.3g}")
    from dim_export.int8.calibration import calibrate
    from dim_runtime.images.pairs import MattingSample
    from dim_runtime.images.samples import lemur

    seen = calibrate(model, [MattingSample(*lemur())])
    if seen.largest_output > LARGEST_FP16:
        raise _too_large_for_fp16(
            f"an activation of magnitude {seen.largest_output:.3g} on the shipped photograph"
        )


def _too_large_for_fp16(got: str) -> CheckpointError:
    return CheckpointError(
        "cannot export this checkpoint in fp16",
        got=got,
        expected=f"magnitudes of at most {LARGEST_FP16:.0f}",
        why="fp16 makes larger numbers infinite",
        fix="--precision bf16, which has the range of fp32, or int8",
    )
