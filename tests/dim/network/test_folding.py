"""Folded batch norm computes what batch norm computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dim.network.folding import fold_batch_norm


@pytest.mark.parametrize("stage", [1, 3])
def test_folding_keeps_the_function(live_model: Any, stage: int) -> None:
    model = live_model(stage=stage, batch_norm=True).double()
    x = torch.randn(2, 4, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = model(x), fold_batch_norm(model)(x)
    assert before.std() > 0.01
    assert (before - after).abs().max() < 1e-12


def test_folding_removes_batch_norm_and_leaves_the_source(live_model: Any) -> None:
    model = live_model(batch_norm=True).train()
    keys = list(model.state_dict())
    folded = fold_batch_norm(model)
    assert all(module.training for module in model.modules())
    assert not folded.config.batch_norm
    assert not folded.training
    assert not any("running_mean" in key for key in folded.state_dict())
    assert list(model.state_dict()) == keys


def test_nothing_to_fold_returns_the_same_model(live_model: Any) -> None:
    model = live_model()
    assert fold_batch_norm(model) is model
