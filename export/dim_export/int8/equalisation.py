"""Scale the channels of every activation to one range, so that one int8 scale fits them all.

Source: cross-layer equalisation, Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019. ReLU, pool and unpool commute with a positive factor of a channel. So one convolution
can divide a channel by a factor and the next can multiply by it, and the function stays the same. Here the
factors come from the ranges of activations, because these share one scale. Weights have one scale for each
output channel.

Equal ranges matter most where activations are compared. If several values share an integer, the pool chooses
the first, at the top left, and unpooling carries this error to the full resolution.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dim.arrays import Float64
from dim.network import DIM
from dim.network.folding import fold_batch_norm

NARROWEST = 1 / 127
"""Lower bound of a channel's range, as a share of the widest channel's. int8 cannot represent a narrower
channel at all, and the bound limits the factors."""


class Equalised(NamedTuple):
    """A network with equal ranges.

    Attributes:
        model: computes the same function; batch norm is folded.
        ranges: largest magnitude of each convolution's input, by name.
    """

    model: DIM
    ranges: dict[str, float]


@torch.no_grad()
def equalise(model: DIM, ranges: Mapping[str, Float64]) -> Equalised:
    """Scale the channels between consecutive convolutions to the range of the widest one.

    Args:
        model: any network; it is not changed.
        ranges: for each convolution, the largest magnitude of each channel of its input, C; positive.
    """
    scaled = copy.deepcopy(fold_batch_norm(model))
    for writer, reader in _neighbours(scaled):
        range_of = ranges[reader.name]
        factors = torch.from_numpy(np.maximum(range_of / range_of.max(), NARROWEST)).to(writer.layer.weight)
        assert writer.layer.bias is not None
        writer.layer.weight /= factors[:, None, None, None]
        writer.layer.bias /= factors
        reader.layer.weight *= factors[:, None, None]
    return Equalised(scaled, {name: float(channels.max()) for name, channels in ranges.items()})


class _Layer(NamedTuple):
    name: str
    layer: nn.Conv2d


def _neighbours(model: DIM) -> Iterator[tuple[_Layer, _Layer]]:
    """Yield (writer, reader) for each convolution whose output is the only input of the next."""
    for part in ("backbone", "refiner"):
        layers = [
            _Layer(name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and name.startswith(part)
        ]
        yield from pairwise(layers)
