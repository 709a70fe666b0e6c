"""The mean of checkpoints: weights and statistics, of one network alone."""

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
from dim_training.average import average
from dim_training.cli.app import app

NETWORK = NetworkConfig(width=0.0625, batch_norm=True)


def saved(path: Path, level: float, config: NetworkConfig = NETWORK) -> Path:
    """Save a network all of whose numbers are ``level``."""
    model = DIM(config)
    model.load_state_dict({key: torch.full_like(value, level) for key, value in model.state_dict().items()})
    checkpoint.save(model, path, provenance={"steps": f"{level:g}00", "validation_sad": "3"})
    return path


def test_every_number_is_the_mean(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{level}.safetensors", level) for level in (1, 2, 6)]
    done = CliRunner().invoke(app, ["average", *map(str, paths), "-o", str(tmp_path / "mean.safetensors")])
    assert done.exit_code == 0, done.output
    found = checkpoint.read(tmp_path / "mean.safetensors")
    assert found.config == NETWORK
    for key, value in found.state_dict.items():
        assert (value == (1 if key.endswith("num_batches_tracked") else 3)).all(), key
    assert found.provenance["averaged 2"] == sha256(paths[1])
    assert found.provenance["steps"] == "100, 200, 600"
    # The score of a checkpoint is not that of the mean.
    assert "validation_sad" not in found.provenance


@pytest.mark.parametrize("change", ["propagates_light", "hardens_ends", "lifts_shadows", "sharpens"])
def test_a_mean_across_a_change_without_weights_is_of_the_first_network(tmp_path: Path, change: str) -> None:
    colours = NetworkConfig(stage=3, width=0.0625, propagation_steps=(1,))
    light = colours.model_copy(update={change: True})
    paths = [
        saved(tmp_path / "light.safetensors", 1, light),
        saved(tmp_path / "before.safetensors", 2, colours),
    ]
    average(paths, tmp_path / "mean.safetensors", command="")
    found = checkpoint.read(tmp_path / "mean.safetensors")
    assert found.config == light
    assert all((value == 1.5).all() for value in found.state_dict.values())


@pytest.mark.parametrize(
    ("option", "change"), [("--lift-shadows", "lifts_shadows"), ("--sharpen", "sharpens")]
)
def test_a_mean_may_read_colours_that_its_checkpoints_do_not(
    tmp_path: Path, option: str, change: str
) -> None:
    paths = [saved(tmp_path / f"{name}.safetensors", number) for name, number in (("one", 1), ("two", 2))]
    mean = tmp_path / "mean.safetensors"
    done = CliRunner().invoke(app, ["average", *map(str, paths), "-o", str(mean), option])
    assert done.exit_code == 0, done.output
    assert checkpoint.read(mean).config == NETWORK.model_copy(update={change: True})
    assert checkpoint.read(paths[0]).config == NETWORK


def test_only_propagated_alpha_has_ends_to_harden(tmp_path: Path) -> None:
    propagated = NetworkConfig(stage=3, width=0.0625, propagation_steps=(1,))
    for config in (propagated, NETWORK):
        name = "propagated" if config.propagation_steps else "plain"
        paths = [saved(tmp_path / f"{name}_{level}.safetensors", level, config) for level in (1, 2)]
        mean = tmp_path / f"{name}_mean.safetensors"
        done = CliRunner().invoke(app, ["average", *map(str, paths), "-o", str(mean), "--harden-ends"])
        if config.propagation_steps:
            assert done.exit_code == 0, done.output
            assert checkpoint.read(mean).config.hardens_ends
        else:
            assert isinstance(done.exception, InputError)
            assert not mean.exists()


def test_numbers_that_are_not_finite_have_no_mean(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{name}.safetensors", 1) for name in ("one", "two")]
    broken = checkpoint.load(paths[1])
    with torch.no_grad():
        broken.backbone.decoder.deconv1.weight[0, 0, 0, 0] = torch.nan
    checkpoint.save(broken, paths[1])
    with pytest.raises(InputError, match=r"two\.safetensors\n.*NaN or infinite"):
        average(paths, tmp_path / "mean.safetensors", command="")
    assert not (tmp_path / "mean.safetensors").exists()


def test_what_has_no_mean_is_an_error(tmp_path: Path) -> None:
    one, two = (saved(tmp_path / f"{name}.safetensors", 1) for name in ("one", "two"))
    other = saved(tmp_path / "other.safetensors", 1, NETWORK.model_copy(update={"width": 0.125}))
    for paths, output, message in (
        ([one], tmp_path / "mean.safetensors", "at least two"),
        ([one, other], tmp_path / "mean.safetensors", "one network"),
        ([one, two], two, "one of the inputs"),
        ([one, two], tmp_path / "mean.onnx", r"\.safetensors at its end"),
    ):
        with pytest.raises(InputError, match=message):
            average(paths, output, command="")
    assert not (tmp_path / "mean.safetensors").exists()
