"""DIM's three losses: Charbonnier distances over the unknown pixels of the whole batch.

c(p, t) = sqrt((p − t)² + ε²) with ε = 1e-6 (Xu et al. 2017, eqs. 1 and 2). Each loss is Σ w·c / (Σ w + 1e-12)
where w is 1 on unknown pixels; a batch without unknown pixels gives exactly 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dim.contract import Stage
from dim.network import Matte

EPSILON_SQUARED = 1e-12
ALPHA_WEIGHT, COMPOSITION_WEIGHT, REFINEMENT_WEIGHT = 0.5, 0.5, 1.0


class Truth(NamedTuple):
    """What the losses compare with; float N, C, H, W in 0-1, colours not normalised.

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
    """Mean Charbonnier distance where ``weight`` is 1; ``weight`` is broadcast over the channels.

    Args:
        total: Σ weight of the whole batch, where this is only a part of it: the parts' losses then add up.
    """
    distance = torch.sqrt((prediction - target) ** 2 + EPSILON_SQUARED) * weight
    total = weight.sum() if total is None else total
    return distance.sum() / (total * prediction.shape[1] + EPSILON_SQUARED)


def composition_loss(alpha: Tensor, truth: Truth, total: Tensor | None = None) -> Tensor:
    """Distance between the image and the composite that the predicted alpha gives."""
    composite = alpha * truth.foreground + (1 - alpha) * truth.background
    return charbonnier(composite, truth.image, truth.unknown, total)


def stage_losses(stage: Stage, matte: Matte, truth: Truth, total: Tensor | None = None) -> dict[str, Tensor]:
    """The weighted terms of a stage by their published names; their plain sum is minimised.

    Args:
        total: unknown pixels of the whole batch, where this is only a part of it.
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
    return terms
