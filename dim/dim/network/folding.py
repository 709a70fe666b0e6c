"""Folding batch norm into the convolutions before it: the same function with fewer operations."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dim.network import DECODER_STEPS, DIM, ENCODER_STAGES


@torch.no_grad()
def fold_batch_norm(model: DIM) -> DIM:
    """Return a model without batch norm that computes the same function in eval mode.

    The given model is not changed; it is returned if it has no batch norm.
    """
    if not model.config.batch_norm:
        return model
    folded = DIM(model.config.model_copy(update={"batch_norm": False}), pooling=model.backbone.pooling)
    folded = folded.to(next(model.parameters()))
    for (convolution, norm), target in zip(_normalised_pairs(model), _convolutions(folded), strict=True):
        # Only modules in eval mode can be fused: copies, because the given model may be in training mode.
        fused = fuse_conv_bn_eval(copy.deepcopy(convolution).eval(), copy.deepcopy(norm).eval())
        target.load_state_dict(fused.state_dict())
    folded.backbone.decoder.deconv1.load_state_dict(model.backbone.decoder.deconv1.state_dict())
    if model.refiner is not None and folded.refiner is not None:
        folded.refiner.load_state_dict(model.refiner.state_dict())
    return folded.eval()


def _convolutions(model: DIM) -> list[nn.Conv2d]:
    """Return, in order, the convolutions that batch norm follows in networks that have it."""
    encoder, decoder = model.backbone.encoder, model.backbone.decoder
    return [
        *(layer for layer in _encoder_layers(model) if isinstance(layer, nn.Conv2d)),
        encoder.conv6,
        *(getattr(decoder, name) for name, _, _ in DECODER_STEPS),
    ]


def _encoder_layers(model: DIM) -> Iterator[nn.Module]:
    for level in range(1, len(ENCODER_STAGES) + 1):
        yield from getattr(model.backbone.encoder, f"layer{level}")


def _normalised_pairs(model: DIM) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    encoder, decoder = model.backbone.encoder, model.backbone.decoder
    norms = [
        *(layer for layer in _encoder_layers(model) if isinstance(layer, nn.BatchNorm2d)),
        encoder.conv6_bn,
        *(getattr(decoder, f"{name}_bn") for name, _, _ in DECODER_STEPS),
    ]
    return list(zip(_convolutions(model), norms, strict=True))
