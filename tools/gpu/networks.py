"""A network of the published architecture with random weights that keep signals alive."""

from __future__ import annotations

import math

import torch
from torch import nn

from dim.contract import NetworkConfig
from dim.network import DIM

_AFTER_UNPOOLING = ("deconv5_1", "deconv4_1", "deconv3_1", "deconv2_1", "deconv1_1")
_LAST = ("deconv1", "refine_pred")


def random_network(*, stage: int = 3, width: float = 1.0, seed: int = 0) -> DIM:
    """Return a network in evaluation mode whose alpha varies over the image.

    Weights are normal with the variance of He's initialisation, 2 / inputs: it keeps the variance through a
    ReLU. Four times as much after an unpooling, which fills three of four places with zeros; half of it in
    the last layers, which no ReLU follows.
    """
    network = DIM(NetworkConfig(stage=stage, width=width))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                layer = name.split(".")
                gain = 8.0 if set(layer) & set(_AFTER_UNPOOLING) else 1.0 if set(layer) & set(_LAST) else 2.0
                inputs = module.weight[0].numel()
                module.weight.normal_(0, math.sqrt(gain / inputs), generator=draw)
                if module.bias is not None:
                    module.bias.uniform_(-0.05, 0.05, generator=draw)
    return network.eval()
