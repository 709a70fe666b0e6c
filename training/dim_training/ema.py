"""Exponential moving average of the weights: what is scored and shipped where a recipe asks for it."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dim.network import DIM


def averaged_copy(model: DIM, decay: float) -> AveragedModel:
    """A copy whose ``update_parameters`` moves weights and running statistics towards the model's.

    At first a long memory would hold little but the random start, so the decay grows to its value as
    (1 + n) / (10 + n).
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(warm)(averaged, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
