"""TF32 is off while a run trains, unless the recipe allows it; the process's setting returns afterwards."""

from __future__ import annotations

import pytest
import torch

from dim_training.config import TrainConfig
from dim_training.devices import float32_convolutions


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
def test_the_setting_returns(tf32: bool, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with float32_convolutions(tf32=tf32):
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is before


def test_recipes_do_not_allow_it_by_default() -> None:
    assert not TrainConfig().tf32
