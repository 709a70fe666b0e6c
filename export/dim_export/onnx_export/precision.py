"""From a network to its graph in one of four precisions; inputs and output are the same in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from onnxscript import ir
from torch import nn

from dim.arrays import WindowShape
from dim.contract import NetworkConfig, Precision, QuantisationInfo
from dim.errors import CheckpointError, InputError
from dim.network import DIM
from dim.network.folding import fold_batch_norm
from dim_export.graph.trace import IR_VERSION, OPSET, trace
from dim_export.int8.calibration import CalibrationPairs, Progress, calibrate
from dim_export.int8.equalisation import equalise
from dim_export.int8.gain_correction import rounding_gain
from dim_export.int8.histogram import METHODS, Method
from dim_export.int8.quantise import quantise, require_layers, scale_logits
from dim_runtime.images.pairs import MattingSample
from dim_runtime.images.samples import lemur

BF16_OPSET, BF16_IR_VERSION = 22, 10
"""The first operator set whose convolution takes bfloat16, and the file format that goes with it."""

DEFAULT_METHOD: Method = "mse"

BUILT_IN = "built-in"
LARGEST_FP16 = torch.finfo(torch.float16).max


def kept_float(config: NetworkConfig) -> tuple[str, ...]:
    """What int8 keeps in float32 by default: the convolutions that see colours.

    Four channels of different ranges share one scale there, in the refiner alpha among them, whose step would
    be 1/48; they are 0.7 % of the work. ``dim-export sensitivity`` on the embedded model and five photographs
    (SAD 7.213 in float32) says that every other layer can be in int8: all of them together cost 1.3 %, one
    alone at most 0.9 % (``layer1.2``, whose output the first pool compares).
    """
    refiner = ("refiner.refine_conv1",) if config.has_refiner else ()
    return ("backbone.encoder.layer1.0", *refiner)


def checked_method(name: str) -> Method:
    """The calibration method of a name; InputError, which lists them, if there is none."""
    for method in METHODS:
        if method == name:
            return method
    raise InputError("there is no such calibration method", got=repr(name), expected=", ".join(METHODS))


class Quantisation(NamedTuple):
    """How to make int8.

    Attributes:
        calibration: folder of ``images/`` and ``trimaps/``; None for the pairs that ship.
        method: how the ranges of the activations are chosen.
        keep_float: convolutions that stay in float32; None for :func:`kept_float`.
        progress: called with the calibration pairs done and in all.
    """

    calibration: Path | None = None
    method: Method = DEFAULT_METHOD
    keep_float: tuple[str, ...] | None = None
    progress: Progress | None = None


class Lowered(NamedTuple):
    """A graph, and what its metadata says about its quantisation; None for the other precisions."""

    graph: ir.Model
    quantisation: QuantisationInfo | None = None


def lower(
    model: DIM,
    precision: Precision,
    *,
    static_shape: WindowShape | None = None,
    quantisation: Quantisation | None = None,
) -> Lowered:
    """The graph of a network in a precision.

    fp16 and bf16 hold their weights in that type, and compute everything in it but the normalisation of the
    inputs and the last sigmoid. int8 is the float32 graph with Q/DQ nodes.

    Args:
        quantisation: for int8 only; None takes the defaults.

    Raises:
        InputError: an impossible shape, an option that does not apply, or pairs that cannot be used.
        CheckpointError: numbers that the precision cannot represent.
    """
    if precision == "int8":
        return _to_int8(model, static_shape, quantisation or Quantisation())
    if quantisation is not None:
        raise InputError(
            f"cannot calibrate an artefact in {precision}", expected="options of quantisation with int8 only"
        )
    if precision == "fp16":
        _require_fp16(model)
        return Lowered(trace(model, static_shape=static_shape, dtype=torch.float16))
    if precision == "bf16":
        return Lowered(
            trace(
                model,
                static_shape=static_shape,
                dtype=torch.bfloat16,
                opset=BF16_OPSET,
                ir_version=BF16_IR_VERSION,
            )
        )
    return Lowered(trace(model, static_shape=static_shape, opset=OPSET, ir_version=IR_VERSION))


def _to_int8(model: DIM, static_shape: WindowShape | None, options: Quantisation) -> Lowered:
    keep = kept_float(model.config) if options.keep_float is None else options.keep_float
    # Before anything that takes long: a mistyped name is told at once.
    require_layers(keep, _layer_names(model))
    pairs = CalibrationPairs(options.calibration)
    seen = calibrate(model, pairs, progress=options.progress)
    equalised = equalise(model, seen.channel_ranges(options.method))

    def quantised(shape: WindowShape | None) -> ir.Model:
        graph = trace(equalised.model, static_shape=shape, slicing=True)
        return quantise(graph, equalised.ranges, keep_float=keep)

    # A frozen graph may not run on calibration's windows.
    free = quantised(None)
    slope = rounding_gain(free, model, pairs, seen.answers)
    graph = scale_logits(free if static_shape is None else quantised(static_shape), 1 / slope)
    about = QuantisationInfo(
        method=options.method,
        calibration=BUILT_IN if options.calibration is None else options.calibration.resolve().name,
        windows=seen.windows,
        keep_float=keep,
    )
    return Lowered(graph, about)


def _layer_names(model: DIM) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def _require_fp16(model: DIM) -> None:
    """Weights, and what the network computes on the shipped photograph, must be below 65 504."""
    for name, value in fold_batch_norm(model).state_dict().items():
        largest = float(value.abs().max())
        if largest > LARGEST_FP16:
            raise _too_large_for_fp16(f"{name} with a value of magnitude {largest:.3g}")
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
