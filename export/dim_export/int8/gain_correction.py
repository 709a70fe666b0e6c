"""Measure the factor by which rounding to int8 scales the logits, so that it can be divided out.

Integers have more ties than floats. The values that unpooling then puts into wrong places make logits larger.
On average over images this is one factor, and the last convolutions can absorb its inverse.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from onnxscript import ir

from dim.network import DIM
from dim_export.graph.onnx_file import describe, write
from dim_export.int8.calibration import AlphaSample, calibration_windows
from dim_export.parity.comparison import gain
from dim_runtime.backends.open import open_backend
from dim_runtime.images.pairs import MattingSample

SANE = (0.5, 2.0)
"""Slopes that rounding can cause. Others have another cause, which the gates must detect."""


def rounding_gain(
    graph: ir.Model, model: DIM, pairs: Iterable[MattingSample], samples: Sequence[AlphaSample]
) -> float:
    """Return the slope of a quantised graph's logits over the float network's, as in the parity report.

    Args:
        graph: an int8 graph with free shapes, which runs in ONNX Runtime on the CPU.
        model: the float network that the graph was made from.
        pairs: the calibration pairs; as many as there are samples are run.
        samples: alphas of the float network.

    Returns:
        The slope. 1 if too few pixels are between 0 and 1, or if the slope is outside :data:`SANE`.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        write(graph, describe(model, checkpoint_sha256="", precision="int8"), path)
        found = _measured(path, pairs, samples)
    return found if found is not None and SANE[0] < found < SANE[1] else 1.0


def scale_logits(model: DIM, factor: float) -> DIM:
    """Return a copy of a network whose logits before the last sigmoid are multiplied by a factor.

    The logits are the output of one convolution or, with a refiner, the sum of two. Only the first channel is
    scaled; a second channel is the trust in alpha. The input of the refiner changes with the first
    convolution, so the result is only near ``factor``.

    Args:
        model: any network; it is not changed.
        factor: positive.
    """
    scaled = copy.deepcopy(model)
    layers = [scaled.backbone.decoder.deconv1]
    if scaled.refiner is not None:
        layers.append(scaled.refiner.refine_pred)
    with torch.no_grad():
        for layer in layers:
            assert layer.bias is not None
            layer.weight[:1] *= factor
            layer.bias[:1] *= factor
    return scaled


def _measured(path: Path, pairs: Iterable[MattingSample], samples: Sequence[AlphaSample]) -> float | None:
    found = []
    with closing(open_backend(path)) as backend:
        matting = calibration_windows(backend)
        for sample, pair in zip(samples, pairs, strict=False):
            found.append(matting(pair.image, pair.trimap).ravel()[sample.pixels])
    return gain(np.concatenate([sample.alpha for sample in samples]), np.concatenate(found))
