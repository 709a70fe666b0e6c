"""The losses and their gradients against the reference implementation's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dim.contract import NetworkConfig
from dim.network import DIM, Matte
from dim_training.config import TrainConfig
from dim_training.data.dataset import Sample, to_sample
from dim_training.data.scenes import Scene
from dim_training.data.transforms import Layers
from dim_training.losses import (
    TrainingStep,
    Truth,
    charbonnier,
    cross_entropy_loss,
    laplacian_loss,
    stage_losses,
)
from dim_training.stages import trained_part


def _batch(arrays: dict[str, Any]) -> Sample:
    rgb = {name: arrays[f"{name}_bgr"][..., ::-1] for name in ("fg", "bg", "merged")}
    samples = [
        to_sample(
            Scene(
                Layers(rgb["fg"][i], rgb["bg"][i], arrays["alpha"][i]), rgb["merged"][i].astype(np.float32)
            ),
            arrays["trimap"][i],
        )
        for i in range(2)
    ]
    return Sample(*(torch.stack(tensors) for tensors in zip(*samples, strict=True)))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_losses_and_gradients_are_the_reference_s(
    stage: Any,
    golden: Callable[[str], dict[str, Any]],
    golden_info: dict[str, Any],
    golden_weights: dict[str, torch.Tensor],
) -> None:
    expected = golden_info["C"][f"stage{stage}"]
    model = DIM(NetworkConfig(stage=stage))
    model.load_state_dict(
        {k: v for k, v in golden_weights.items() if stage > 1 or not k.startswith("refiner.")}
    )
    trained_part(model)

    terms = TrainingStep(model)(_batch(golden("C_losses_64")))
    torch.stack(list(terms.values())).sum().backward()

    names = {key for key in expected if key.startswith("loss_")}
    assert set(terms) == names
    for name in names:
        assert terms[name].item() == pytest.approx(expected[name], rel=1e-5)
    assert sum(p.grad is not None for p in model.parameters()) == expected["n_params_with_grad"]
    first = model.get_parameter("backbone.encoder.layer1.0.weight").grad
    norm = None if first is None else first.norm().item()
    assert norm == (None if stage == 2 else pytest.approx(expected["gradnorm_conv1"], rel=1e-5))


def test_no_unknown_pixel_gives_exactly_zero() -> None:
    prediction, target = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    assert charbonnier(prediction, target, torch.zeros(1, 1, 8, 8)).item() == 0


def test_the_mean_is_over_the_unknown_pixels_of_the_whole_batch() -> None:
    weight = torch.zeros(2, 1, 4, 4)
    weight[0, 0, 0, 0] = 1
    weight[1, 0, :2] = 1
    prediction, target = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    target[0] = 0.9
    assert charbonnier(prediction, target, weight).item() == pytest.approx(0.9 / 9, abs=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    torch.manual_seed(0)
    prediction, target = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    weight = (torch.rand(4, 1, 8, 8) > 0.7).float()
    whole = charbonnier(prediction, target, weight)
    total = weight.sum()
    parts = [charbonnier(prediction[i], target[i], weight[i], total) for i in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_published_values_are_the_defaults() -> None:
    config = TrainConfig()
    assert (config.learning_rate, config.batch, config.steps, config.decay_steps) == (1e-5, 1, 1_000_000, 0)
    assert (config.data.crop_sides, config.data.size, config.data.trimap_sizes) == (
        (320, 480, 640),
        320,
        (1, 29),
    )


def _truth(alpha: torch.Tensor, unknown: torch.Tensor) -> Truth:
    colours = torch.zeros(alpha.shape[0], 3, *alpha.shape[2:])
    return Truth(alpha, colours, colours, colours, unknown)


def test_the_laplacian_loss_counts_unknown_pixels_only() -> None:
    draw = torch.Generator().manual_seed(0)
    alpha, other = (torch.rand(2, 1, 64, 96, generator=draw) for _ in range(2))
    unknown = (torch.rand(2, 1, 64, 96, generator=draw) < 0.5).float()
    assert laplacian_loss(alpha, _truth(alpha, unknown)) == 0
    known_differs = alpha * unknown + other * (1 - unknown)
    assert laplacian_loss(known_differs, _truth(alpha, unknown)) == 0
    assert laplacian_loss(other, _truth(alpha, unknown)) > 0.1


def test_a_constant_error_is_left_to_the_coarsest_level() -> None:
    alpha, unknown = torch.full((1, 1, 64, 64), 0.3), torch.ones(1, 1, 64, 64)
    # The level 4 holds it, weighted with 2^4.
    assert laplacian_loss(alpha + 0.1, _truth(alpha, unknown)).item() == pytest.approx(16 * 0.1, rel=1e-4)


def test_parts_of_a_batch_add_up_to_its_laplacian_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    alpha, other = (torch.rand(2, 1, 64, 64, generator=draw) for _ in range(2))
    unknown = (torch.rand(2, 1, 64, 64, generator=draw) < 0.5).float()
    whole = laplacian_loss(other, _truth(alpha, unknown))
    parts = [
        laplacian_loss(other[i : i + 1], _truth(alpha[i : i + 1], unknown[i : i + 1]), unknown.sum())
        for i in range(2)
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)  # type: ignore[union-attr]


def test_cross_entropy_teaches_where_a_distance_does_not() -> None:
    """The gradient of an unknown pixel is its error, however sure of itself the network is."""
    logits = torch.tensor([[[[-16.0, 0.0], [16.0, -30.0]]]], requires_grad=True)
    alpha = torch.tensor([[[[1.0, 0.25], [0.5, 1.0]]]])
    unknown = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    truth = _truth(alpha, unknown)

    cross_entropy_loss(logits, truth).backward()
    assert logits.grad is not None
    expected = torch.tensor([[[[-1.0, 0.25], [0.5, 0.0]]]]) / 3
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=0)

    logits.grad = None
    charbonnier(torch.sigmoid(logits), alpha, unknown).backward()
    assert logits.grad[0, 0, 0, 0].abs() < 1e-6


def test_cross_entropy_is_a_term_of_the_stages_that_train_the_decoder() -> None:
    logits, unknown = torch.randn(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    truth = _truth(torch.rand(1, 1, 32, 32), unknown)
    matte = Matte(logits, torch.sigmoid(logits), torch.sigmoid(logits))
    plain = {stage: stage_losses(stage, matte, truth) for stage in (1, 2, 3)}
    for stage, terms in plain.items():
        more = stage_losses(stage, matte, truth, cross_entropy=0.5)
        added = {} if stage == 2 else {"loss_cross_entropy": 0.5 * cross_entropy_loss(logits, truth)}
        assert more == {**terms, **added}
