"""Making the channels of every activation equally wide, so that one scale for all of them fits each.

Source: cross-layer equalisation, Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019. A ReLU, a pool and an unpool let a positive factor of a channel through: what one
convolution divides a channel by, the next can multiply it by, and the function stays the same. Here the
factors come from the ranges of activations, which share one scale; weights have one for each output channel.

It matters most where activations are compared. Of values that share an integer the first wins the pool, which
is always the one at the top left, and unpooling carries the mistake to the full resolution.
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
"""A channel that is narrower than this share of the widest one counts as this wide: int8 showed nothing of it
before, and no factor should be larger."""


class Equalised(NamedTuple):
    """``model``: of the same function, batch norm folded. ``ranges``: of each convolution's input."""

    model: DIM
    ranges: dict[str, float]


@torch.no_grad()
def equalise(model: DIM, ranges: Mapping[str, Float64]) -> Equalised:
    """Scale the channels between consecutive convolutions so that their ranges become the widest one's.

    Args:
        model: left as it is.
        ranges: for each convolution, the largest magnitude of each channel of its input; positive.
    """
    scaled = copy.deepcopy(fold_batch_norm(model))
    for writer, reader in _neighbours(scaled):
        wanted = ranges[reader.name]
        factors = torch.from_numpy(np.maximum(wanted / wanted.max(), NARROWEST)).to(writer.layer.weight)
        assert writer.layer.bias is not None
        writer.layer.weight /= factors[:, None, None, None]
        writer.layer.bias /= factors
        reader.layer.weight *= factors[:, None, None]
    return Equalised(scaled, {name: float(channels.max()) for name, channels in ranges.items()})


class _Layer(NamedTuple):
    name: str
    layer: nn.Conv2d


def _neighbours(model: DIM) -> Iterator[tuple[_Layer, _Layer]]:
    """Every convolution whose output is all that another one reads, and that one."""
    for part in ("backbone", "refiner"):
        layers = [
            _Layer(name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and name.startswith(part)
        ]
        yield from pairwise(layers)
