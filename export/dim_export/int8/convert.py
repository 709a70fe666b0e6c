"""Convert a float network to its int8 graph: calibrate, equalise, quantise, correct the slope."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from onnxscript import ir
from torch import nn

from dim.arrays import WindowShape
from dim.contract import NetworkConfig, QuantisationInfo
from dim.network import DIM
from dim_export.graph.pixel_blocks import compute_blocks, read_planes
from dim_export.graph.trace import trace
from dim_export.int8 import Method
from dim_export.int8.calibration import CalibrationPairs, Progress, calibrate
from dim_export.int8.equalisation import equalise
from dim_export.int8.gain_correction import rounding_gain, scale_logits
from dim_export.int8.normalisation import normalise_at_once
from dim_export.int8.quantise import quantise, require_layers

DEFAULT_METHOD: Method = "percentile"

BUILT_IN = "built-in"
"""Name of the calibration pairs that ship with the exporter, as metadata records it."""


def kept_float(config: NetworkConfig) -> tuple[str, ...]:
    """Return the convolutions that int8 keeps in float32 by default: one that reads alpha, and the logits.

    In the refiner's first convolution four channels share one scale, so that the step of alpha would be 1/48.
    The network's first one reads colours in steps of 1.2 levels of the image. That changes the mean SAD of
    dim-compact by less than 0.2 %. Logits are written in float: ONNX Runtime would compute these
    convolutions in float in any case, because no QuantizeLinear follows.
    """
    refiner = ("refiner.refine_conv1", "refiner.refine_pred") if config.has_refiner else ()
    return ("backbone.decoder.deconv1", *refiner)


class Quantisation(NamedTuple):
    """Options of int8.

    Attributes:
        calibration: folder of ``images/`` and ``trimaps/``; None for the shipped pairs.
        method: method that chooses the ranges of the activations.
        keep_float: convolutions that stay in float32; None for :func:`kept_float`.
        progress: called with the calibration pairs done and the total.
    """

    calibration: Path | None = None
    method: Method = DEFAULT_METHOD
    keep_float: tuple[str, ...] | None = None
    progress: Progress | None = None


class Int8Graph(NamedTuple):
    """An int8 graph, and the record of its calibration."""

    graph: ir.Model
    quantisation: QuantisationInfo


def to_int8(model: DIM, static_shape: WindowShape | None, options: Quantisation) -> Int8Graph:
    """Calibrate, equalise and quantise a network, and correct the slope of its logits.

    Args:
        model: a float network; it is not changed.
        static_shape: N, H, W to freeze; None leaves all three free.
        options: calibration pairs and method, and the layers that stay in float.

    Raises:
        InputError: an unknown layer, or calibration pairs that cannot be used.
        CheckpointError: a weight that is not finite.
        MissingExtraError: ONNX Runtime, which measures the slope, is not installed.
    """
    keep = kept_float(model.config) if options.keep_float is None else options.keep_float
    # Check the names before the slow calibration, to fail fast.
    require_layers(keep, _layer_names(model))
    pairs = CalibrationPairs(options.calibration)
    seen = calibrate(model, pairs, progress=options.progress)
    equalised = equalise(model, seen.channel_ranges(options.method))

    def quantised(scaled: DIM, shape: WindowShape | None) -> ir.Model:
        graph = read_planes(compute_blocks(trace(scaled, static_shape=shape, slicing=True)))
        return quantise(normalise_at_once(graph), equalised.ranges, keep_float=keep)

    # Measure the slope on a graph of free shape: a frozen one does not accept the calibration windows.
    slope = rounding_gain(quantised(equalised.model, None), model, pairs, seen.samples)
    graph = quantised(scale_logits(equalised.model, 1 / slope), static_shape)
    record = QuantisationInfo(
        method=options.method,
        calibration=BUILT_IN if options.calibration is None else options.calibration.resolve().name,
        windows=seen.windows,
        keep_float=keep,
    )
    return Int8Graph(graph, record)


def _layer_names(model: DIM) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
