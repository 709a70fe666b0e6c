"""A widened network computes the same alpha, and its copies of a channel learn apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import InputError
from dim.files import sha256
from dim.network import DIM
from dim_training.cli.app import app
from dim_training.widen import widen

NARROW = NetworkConfig(stage=3, width=0.0625, batch_norm=True, cue_radii=(4, 16), propagation_steps=(2, 1))


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """Save a network whose statistics and biases are no longer the first ones."""
    torch.manual_seed(0)
    model = DIM(NARROW)
    state = model.state_dict()
    for key, value in state.items():
        if value.dim() == 1:
            state[key] = value + 0.3 * torch.rand_like(value)
    model.load_state_dict(state)
    checkpoint.save(model, tmp_path / "narrow.safetensors", provenance={"steps": "7, 8", "note": "none"})
    return tmp_path / "narrow.safetensors"


def network_input() -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, 64, 96, generator=drawn)
    trimap = torch.randint(0, 3, (1, 1, 64, 96), generator=drawn) * 0.5
    return torch.cat([image, trimap], 1)


@pytest.mark.parametrize("width", [0.125, 0.15625])
def test_it_computes_the_same(tmp_path: Path, narrow: Path, width: float) -> None:
    """Also where some channels have two copies and others three."""
    wide = tmp_path / "wide.safetensors"
    done = CliRunner().invoke(app, ["widen", str(narrow), "-o", str(wide), "--width", str(width)])
    assert done.exit_code == 0, done.output
    found, before = checkpoint.load(wide).eval(), checkpoint.load(narrow).eval()
    assert found.config == NARROW.model_copy(update={"width": width})
    with torch.no_grad():
        expected, alpha = before.matte(network_input()), found.matte(network_input())
    torch.testing.assert_close(alpha.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alpha.final, expected.final, rtol=1e-4, atol=1e-5)
    provenance = checkpoint.read(wide).provenance
    assert provenance["widened"] == sha256(narrow)
    assert provenance["steps"] == "7, 8"
    assert "note" not in provenance


def test_copies_have_gradients_that_differ(tmp_path: Path, narrow: Path) -> None:
    widen(narrow, tmp_path / "wide.safetensors", 0.125, command="")
    model = checkpoint.load(tmp_path / "wide.safetensors").train()
    model(network_input()).sum().backward()
    gradient = model.backbone.decoder.deconv2_1.weight.grad
    assert gradient is not None
    first, copy = gradient.chunk(2)
    assert (first - copy).abs().max() > 0.01 * first.abs().max()


def test_the_seed_decides_the_shares(tmp_path: Path, narrow: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        widen(narrow, tmp_path / f"{name}.safetensors", 0.125, seed=seed, command="")
    one, same, other = (
        checkpoint.read(tmp_path / f"{name}.safetensors").state_dict for name in ("one", "same", "other")
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_what_cannot_be_widened_is_an_error(tmp_path: Path, narrow: Path) -> None:
    for width, output, message in (
        (0.0625, tmp_path / "wide.safetensors", "more than its own"),
        (0.13, tmp_path / "wide.safetensors", "whole number of 64ths"),
        (float("nan"), tmp_path / "wide.safetensors", "whole number of 64ths"),
        (2.5, tmp_path / "wide.safetensors", "at most 2"),
        (0.125, narrow, "one of the inputs"),
        (0.125, tmp_path / "wide.onnx", r"\.safetensors at its end"),
    ):
        with pytest.raises(InputError, match=message):
            widen(narrow, output, width, command="")
    assert not (tmp_path / "wide.safetensors").exists()
