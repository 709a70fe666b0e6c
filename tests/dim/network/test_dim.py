"""The network against the reference implementation's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dim.contract import NetworkConfig
from dim.errors import InputError
from dim.network import (
    DIM,
    FIRST_TRUST,
    adjusted,
    lift_shadows,
    multiply_adds_per_pixel,
    normalise,
    sharpen,
)
from dim.network.pooling import IndexPooling, PhasePooling


@pytest.fixture(scope="module", params=[IndexPooling, PhasePooling])
def golden_model(request: pytest.FixtureRequest, golden_weights: dict[str, Any]) -> DIM:
    model = DIM(NetworkConfig(stage=3), pooling=request.param())
    model.load_state_dict(golden_weights)
    return model.eval()


def test_keys_and_shapes_are_the_reference_s(golden_info: dict[str, Any]) -> None:
    found = [[key, list(value.shape)] for key, value in DIM(NetworkConfig(stage=3)).state_dict().items()]
    assert len(found) == 50
    assert found == golden_info["state_dict"]


def test_stage_1_has_the_first_42(golden_info: dict[str, Any]) -> None:
    keys = list(DIM(NetworkConfig(stage=1)).state_dict())
    assert keys == [key for key, _ in golden_info["state_dict"][:42]]


@pytest.mark.parametrize("stage", [1, 3])
def test_parameter_count(stage: Any, golden_info: dict[str, Any]) -> None:
    model = DIM(NetworkConfig(stage=stage))
    assert sum(p.numel() for p in model.parameters()) == golden_info["params"][f"stage{stage}"]


@pytest.mark.parametrize("name", ["A32_forward", "A64_forward"])
def test_forward_matches_the_reference(golden_model: DIM, golden: Any, name: str) -> None:
    arrays = golden(name)
    with torch.no_grad():
        matte = golden_model.matte(torch.from_numpy(arrays["x"]))
    assert matte.refined is not None
    np.testing.assert_allclose(matte.alpha.numpy(), arrays["pred_alpha"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(matte.refined.numpy(), arrays["pred_refine"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(matte.logits.numpy(), arrays["raw_alpha"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["A32_forward", "A64_forward"])
def test_normalise_makes_the_reference_s_input(golden: Any, name: str) -> None:
    arrays = golden(name)
    rgb = torch.from_numpy(arrays["bgr"][..., ::-1].copy()).permute(0, 3, 1, 2)
    made = normalise(rgb, torch.from_numpy(arrays["trimap"]).unsqueeze(1))
    np.testing.assert_allclose(made.numpy(), arrays["x"], rtol=0, atol=1e-6)


def test_normalise_keeps_float64() -> None:
    made = normalise(torch.zeros(1, 3, 32, 32, dtype=torch.float64), torch.zeros(1, 1, 32, 32))
    assert made.dtype == torch.float64


@pytest.mark.parametrize(
    ("stage", "width", "expected"),
    [(1, 1.0, 590_144), (2, 1.0, 666_752), (3, 1.0, 666_752), (1, 0.25, 37_616)],
)
def test_multiply_adds(stage: Any, width: float, expected: int) -> None:
    assert multiply_adds_per_pixel(NetworkConfig(stage=stage, width=width)) == expected


def test_cues_are_further_inputs_of_the_refiner_alone() -> None:
    plain, cued = (
        {
            key: value.shape
            for key, value in DIM(NetworkConfig(stage=3, width=0.25, cue_radii=radii)).state_dict().items()
        }
        for radii in ((), (4, 16))
    )
    assert {key for key in plain if plain[key] != cued[key]} == {"refiner.refine_conv1.weight"}
    assert plain.keys() == cued.keys()
    assert cued["refiner.refine_conv1.weight"] == (16, 8, 3, 3)
    assert (
        multiply_adds_per_pixel(NetworkConfig(stage=3, width=0.25, cue_radii=(4, 16))) == 42_944 + 4 * 9 * 16
    )


def test_propagation_asks_the_refiner_for_trust() -> None:
    config = NetworkConfig(stage=3, width=0.25, propagation_steps=(4, 3, 2))
    weights = DIM(config).state_dict()
    assert weights["refiner.refine_pred.weight"].shape == (2, 16, 3, 3)
    assert weights["refiner.refine_pred.bias"].tolist() == pytest.approx([0, FIRST_TRUST])
    assert multiply_adds_per_pixel(config) == 42_944 + 9 * 16


def test_trusted_everywhere_propagation_changes_nothing(live_model: Any) -> None:
    plain, spread = live_model(seed=3), live_model(seed=4, propagation_steps=(2, 2))
    weights = plain.state_dict()
    for name in ("weight", "bias"):
        both = torch.zeros_like(spread.state_dict()[f"refiner.refine_pred.{name}"])
        both[:1] = 1000 * weights[f"refiner.refine_pred.{name}"]
        both[1:] = 1000 if name == "bias" else 0
        weights[f"refiner.refine_pred.{name}"] = both
        plain.state_dict()[f"refiner.refine_pred.{name}"].copy_(both[:1])
    spread.load_state_dict(weights)
    x = torch.rand(1, 4, 64, 96, generator=torch.Generator().manual_seed(5)) * 2 - 1
    x[:, 3] = 128 / 255
    with torch.no_grad():
        expected, found = plain(x), spread(x)
    sure = (2 * expected - 1).abs() == 1
    assert sure.float().mean() > 0.5
    assert torch.equal(found[sure], expected[sure])


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 4, 33, 32), (1, 4, 32, 48), (4, 32, 32)])
def test_a_tensor_that_is_no_input_is_a_typed_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="N, 4, H, W"):
        DIM(NetworkConfig(width=0.125))(torch.zeros(shape))


def test_eval_returns_the_model() -> None:
    model = DIM(NetworkConfig(width=0.125))
    assert model.eval() is model


def test_lifted_shadows_are_a_power_of_the_values() -> None:
    values = torch.linspace(0, 1, 256, dtype=torch.float64)
    assert (lift_shadows(values) - values**0.625).abs().max() < 1e-12
    # Rounding may leave a black pixel below zero.
    assert lift_shadows(torch.tensor([-1e-8])) == 0


def test_sharpening_adds_to_differences_from_grey_and_from_the_mean_around() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(1, 3, 32, 32, generator=draw, dtype=torch.float64)
    grey = values.mean(1, keepdim=True)
    saturated = grey + 1.4 * (values - grey)
    expected = torch.empty_like(values)
    for row in range(32):
        for column in range(32):
            # The image's border is repeated outside.
            rows, columns = (torch.arange(place - 4, place + 5).clamp(0, 31) for place in (row, column))
            square = saturated[:, :, rows][..., columns]
            expected[:, :, row, column] = 1.5 * saturated[:, :, row, column] - 0.5 * square.mean((2, 3))
    assert (sharpen(values) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("adjustments", "expected"),
    [
        ({"lifts_shadows": True}, lift_shadows),
        ({"sharpens": True}, sharpen),
        ({"lifts_shadows": True, "sharpens": True}, lambda values: sharpen(lift_shadows(values))),
    ],
)
def test_colours_are_adjusted_as_values_from_0_to_1(
    adjustments: dict[str, bool], expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(1, 3, 32, 32, generator=draw, dtype=torch.float64)
    trimap = torch.full((1, 1, 32, 32), 128.0, dtype=torch.float64)
    given = normalise(255 * values, trimap)
    assert adjusted(given, NetworkConfig()) is given
    found = adjusted(given, NetworkConfig(**adjustments))
    assert (found - normalise(255 * expected(values), trimap)).abs().max() < 1e-6
    assert torch.equal(found[:, 3:], given[:, 3:])


@pytest.mark.parametrize("adjustments", [{"lifts_shadows": True}, {"lifts_shadows": True, "sharpens": True}])
def test_propagation_reads_the_colours_of_the_image(live_model: Any, adjustments: dict[str, bool]) -> None:
    """Colours are adjusted for encoder, cues and refiner; closed-form's lines are the image's own."""
    model = live_model(propagation_steps=(2,), **adjustments)
    seen: list[torch.Tensor] = []
    model.refiner.propagate = lambda x, estimate: seen.append(x) or estimate.refined
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=draw) * 255
    x = normalise(image, torch.full((1, 1, 64, 64), 128.0))
    plain = live_model(propagation_steps=(2,))
    with torch.no_grad():
        found = model.matte(x)
        expected = plain.backbone(adjusted(x, model.config))
    assert torch.equal(seen[0], x)
    assert torch.equal(found.logits, expected)
