"""Equal ranges for all channels of an activation, and the same function as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dim.network import DIM
from dim.network.folding import fold_batch_norm
from dim_export.int8.calibration import calibrate
from dim_export.int8.equalisation import NARROWEST, equalise
from dim_runtime.images.pairs import MattingSample

SECOND, THIRD = "backbone.encoder.layer1.2", "backbone.encoder.layer2.0"


def _pair() -> MattingSample:
    draw = np.random.default_rng(0)
    return MattingSample(draw.integers(0, 256, (64, 64, 3), np.uint8), np.full((64, 64), 128, np.uint8))


@pytest.mark.parametrize("stage", [1, 3])
def test_the_function_stays_the_same_and_channels_become_equally_wide(
    live_model: Callable[..., DIM], stage: int
) -> None:
    model = live_model(stage=stage, width=0.0625, batch_norm=True)
    ranges = calibrate(model, [_pair()]).channel_ranges("minmax")
    found = equalise(model, ranges)
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, alpha = fold_batch_norm(model)(x), found.model(x)
    assert expected.std() > 0.01
    assert (alpha - expected).abs().max() < 1e-4
    again = calibrate(found.model, [_pair()]).channel_ranges("minmax")
    for name in (SECOND, THIRD, "backbone.decoder.deconv1"):
        assert ranges[name].min() < 0.9 * ranges[name].max()
        assert again[name] == pytest.approx(np.full(len(again[name]), found.ranges[name]), rel=0.01)
    if stage == 3:
        # Colours and alpha are what they are.
        first = "refiner.refine_conv1"
        assert again[first] == pytest.approx(ranges[first], rel=1e-3)


def test_no_channel_is_made_wider_than_int8_could_have_shown(live_model: Callable[..., DIM]) -> None:
    model = live_model(stage=1, width=0.0625)
    before = model.backbone.encoder.layer1[0].weight.clone()
    ranges = {name: np.ones(layer.in_channels) for name, layer in _convolutions(model)}
    ranges[SECOND] = np.array([8.0, 4.0, 2.0, 1e-9])
    found = equalise(model, ranges)
    factors = before / found.model.backbone.encoder.layer1[0].weight
    assert factors.mean((1, 2, 3)).tolist() == pytest.approx([1, 0.5, 0.25, NARROWEST])
    assert found.ranges[SECOND] == 8
    assert torch.equal(model.backbone.encoder.layer1[0].weight, before)


def _convolutions(model: DIM) -> list[tuple[str, torch.nn.Conv2d]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)]
