"""The losses, over the unknown pixels of the whole batch: DIM's three, and two that recipes may add.

DIM's are Charbonnier distances, c(p, t) = sqrt((p − t)² + ε²) with ε = 1e-6 (Xu et al. 2017, eqs. 1 and 2).
Each is Σ w·c / (Σ w + 1e-12) where w is 1 on unknown pixels; a batch without unknown pixels gives exactly 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim.contract import Stage
from dim.network import DIM, Matte
from dim_training.data.dataset import Sample

EPSILON_SQUARED = 1e-12
ALPHA_WEIGHT, COMPOSITION_WEIGHT, REFINEMENT_WEIGHT = 0.5, 0.5, 1.0
LAPLACIAN_LEVELS = 5
GAUSSIAN = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Taps of the pyramid's low-pass filter (Burt and Adelson 1983)."""


class Truth(NamedTuple):
    """References of the losses; float N, C, H, W in 0-1, colours not normalised.

    Attributes:
        alpha: true alpha, C = 1.
        foreground, background, image: colours, C = 3; ``image`` is the composite that the network saw.
        unknown: 1 on unknown pixels of the trimap that the network saw, else 0; C = 1.
    """

    alpha: Tensor
    foreground: Tensor
    background: Tensor
    image: Tensor
    unknown: Tensor


def charbonnier(prediction: Tensor, target: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """Return the mean Charbonnier distance where ``weight`` is 1.

    Args:
        prediction: float N, C, H, W.
        target: float N, C, H, W.
        weight: float N, 1, H, W of 0 and 1; it is broadcast over the channels.
        total: Σ weight of the whole batch, where this is only a part of it: the parts' losses then add up.
    """
    distance = torch.sqrt((prediction - target) ** 2 + EPSILON_SQUARED) * weight
    total = weight.sum() if total is None else total
    return distance.sum() / (total * prediction.shape[1] + EPSILON_SQUARED)


def composition_loss(alpha: Tensor, truth: Truth, total: Tensor | None = None) -> Tensor:
    """Return the distance between the image and the composite that the predicted alpha, N, 1, H, W, gives."""
    composite = alpha * truth.foreground + (1 - alpha) * truth.background
    return charbonnier(composite, truth.image, truth.unknown, total)


def stage_losses(
    stage: Stage,
    matte: Matte,
    truth: Truth,
    total: Tensor | None = None,
    *,
    laplacian: float = 0.0,
    cross_entropy: float = 0.0,
) -> dict[str, Tensor]:
    """Return the weighted terms of a stage by their published names; their plain sum is minimised.

    Args:
        total: unknown pixels of the whole batch, where this is only a part of it.
        laplacian: weight of :func:`laplacian_loss` of the stage's output; 0 as published.
        cross_entropy: weight of :func:`cross_entropy_loss` of the decoder's logits; 0 as published.
    """
    terms: dict[str, Tensor] = {}
    if stage != 2:
        terms["loss_alpha"] = ALPHA_WEIGHT * charbonnier(matte.alpha, truth.alpha, truth.unknown, total)
        terms["loss_comp"] = COMPOSITION_WEIGHT * composition_loss(matte.alpha, truth, total)
    if stage != 1:
        assert matte.refined is not None
        terms["loss_refine"] = REFINEMENT_WEIGHT * charbonnier(
            matte.refined, truth.alpha, truth.unknown, total
        )
    if laplacian:
        output = matte.alpha if matte.refined is None else matte.refined
        terms["loss_laplacian"] = laplacian * laplacian_loss(output, truth, total)
    if cross_entropy and stage != 2:
        terms["loss_cross_entropy"] = cross_entropy * cross_entropy_loss(matte.logits, truth, total)
    return terms


def cross_entropy_loss(logits: Tensor, truth: Truth, total: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy between alpha and its logits over unknown pixels.

    Its gradient is the error of alpha itself. That of a distance between alphas carries a factor α(1 − α), so
    that pixels which are wrong with confidence teach nothing. Not one of DIM's losses.
    """
    total = truth.unknown.sum() if total is None else total
    entropy = F.binary_cross_entropy_with_logits(logits, truth.alpha, reduction="none")
    return (entropy * truth.unknown).sum() / (total + EPSILON_SQUARED)


def laplacian_loss(alpha: Tensor, truth: Truth, total: Tensor | None = None) -> Tensor:
    """Return Σ over levels l of 2^l × mean distance between Laplacian pyramids (Hou and Liu 2019, eq. 2).

    Known pixels count as right. A pixel of level l stands for 4^l pixels of the image, so that each level's
    sum is divided by (unknown pixels / 4^l). Not one of DIM's losses: the published recipes leave it out.

    Args:
        alpha: prediction, float N, 1, H, W; H and W multiples of 16.
        total: unknown pixels of the whole batch, where this is only a part of it.
    """
    total = truth.unknown.sum() if total is None else total
    remaining = (alpha - truth.alpha) * truth.unknown
    # The pyramid is linear: that of the difference is the difference of the pyramids.
    terms = []
    for level in range(LAPLACIAN_LEVELS):
        coarse = _halved(remaining)
        last = level == LAPLACIAN_LEVELS - 1
        detail = remaining if last else remaining - _doubled(coarse)
        terms.append(detail.abs().sum() * 2**level * 4**level / (total + EPSILON_SQUARED))
        remaining = coarse
    return torch.stack(terms).sum()


def _halved(planes: Tensor) -> Tensor:
    return _blurred(planes)[..., ::2, ::2]


def _doubled(planes: Tensor) -> Tensor:
    return F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)


def _blurred(planes: Tensor) -> Tensor:
    taps = planes.new_tensor(GAUSSIAN)
    padded = F.pad(planes, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5))


class TrainingStep(nn.Module):
    """Forward pass and losses as one module, which accelerate wraps for several processes."""

    def __init__(self, model: DIM, *, laplacian: float = 0.0, cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.laplacian, self.cross_entropy = laplacian, cross_entropy

    def forward(self, batch: Sample, total: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss terms of a batch, or of its part of a batch with ``total`` unknown pixels."""
        matte = self.model.matte(batch.network_input)
        # The losses of a bfloat16 forward are summed over many thousand pixels: in float32.
        matte = matte._replace(
            logits=matte.logits.float(),
            alpha=torch.sigmoid(matte.logits.float()),
            refined=None if matte.refined is None else matte.refined.float(),
        )
        truth = Truth(batch.alpha, batch.foreground, batch.background, batch.image, batch.unknown)
        return stage_losses(
            self.model.config.stage,
            matte,
            truth,
            total,
            laplacian=self.laplacian,
            cross_entropy=self.cross_entropy,
        )
