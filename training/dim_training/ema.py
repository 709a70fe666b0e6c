"""Exponential moving average of the weights, which is scored and shipped if the recipe sets ``ema``."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dim.network import DIM


def averaged_copy(model: DIM, decay: float) -> AveragedModel:
    """Return a copy whose ``update_parameters`` moves weights and statistics towards the model's.

    The decay grows to its value as (1 + n) / (10 + n), because a long memory would at first hold little but
    the random start.
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(warm)(averaged, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
