"""The loop, on a tiny network: it learns, it saves, and it resumes exactly where it stopped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import CheckpointError, InputError
from dim.network import DIM
from dim_training.build import build_run
from dim_training.config import DataConfig, TrainConfig, ValidationConfig
from dim_training.data.dataset import Sample, build_dataset
from dim_training.losses import TrainingStep
from dim_training.stages import build_network
from dim_training.trainer import DivergenceError, Trainer, learning_rate_factor


def _config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "network": NetworkConfig(width=0.125, batch_norm=True),
        "data": DataConfig(crop_sides=(64,), size=64, workers=0),
        "steps": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "log_every": 2,
        "ema": 0.9,
    }
    return TrainConfig(**(settings | changes))


def _trainer(config: TrainConfig, output: Path, **options: Any) -> Trainer:
    return Trainer(build_run(config, output, **options))


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(path).state_dict


def test_a_run_writes_what_it_promises(tmp_path: Path) -> None:
    _trainer(_config(), tmp_path, command="dim-train fit x.toml").fit()
    assert {path.name for path in tmp_path.iterdir()} >= {
        "last", "best.safetensors", "final.safetensors", "metrics.csv", "metrics.jsonl", "config.json",
    }  # fmt: skip
    contents = checkpoint.read(tmp_path / "best.safetensors")
    assert contents.config == NetworkConfig(width=0.125, batch_norm=True)
    assert contents.provenance["command"] == "dim-train fit x.toml"
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [str(line["loss"]) for line in lines] == [row["loss"] for row in rows]
    # Without photographs nothing was compared, and the file of the best weights states it.
    assert contents.provenance["best"] == "the last weights: nothing was scored"
    assert "best" not in checkpoint.read(tmp_path / "final.safetensors").provenance


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        pytest.param({"workers": 1}, marks=pytest.mark.slow),
        pytest.param({"compose": "device", "workers": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = DataConfig(crop_sides=(64,), size=64, photometric=True, **settings)
    _trainer(_config(data=data), tmp_path / "whole").fit()

    class Interrupted(Trainer):
        def _occasionally(self) -> None:
            super()._occasionally()
            if self.position.step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(build_run(_config(data=data), tmp_path / "parts")).fit()
    trainer = _trainer(_config(data=data), tmp_path / "parts", resume=True)
    assert trainer.position.step == 2
    trainer.fit()

    whole, parts = (_weights(tmp_path / name / "final.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.slow
def test_the_loss_of_a_fixed_batch_falls() -> None:
    torch.manual_seed(0)
    dataset = build_dataset(DataConfig(crop_sides=(64,), size=64, workers=0), seed=0, length=4)
    batch = Sample(*(torch.stack(tensors) for tensors in zip(*(dataset[i] for i in range(4)), strict=True)))
    step = TrainingStep(DIM(NetworkConfig(width=0.125, batch_norm=True)))
    optimiser = torch.optim.Adam(step.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = torch.stack(list(step(batch).values())).sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """One photograph of 70 × 50 pixels, all of it unknown."""
    draw = np.random.default_rng(0)
    for folder, array in (
        ("images", draw.integers(0, 256, (50, 70, 3), dtype=np.uint8)),
        ("trimaps", np.full((50, 70), 128, np.uint8)),
        ("alphas", draw.integers(0, 256, (50, 70), dtype=np.uint8)),
    ):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "photos" / folder / "one.png"), array)
    return tmp_path / "photos"


def test_tensorboard_shows_losses_scores_and_panels(tmp_path: Path, photographs: Path) -> None:
    validation = ValidationConfig(root=photographs, every=2)
    _trainer(_config(validation=validation, tensorboard=True), tmp_path / "run").fit()
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    assert {"loss", "loss_alpha", "learning_rate", "sad", "conn"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("one")] == [2, 4]
    panel = cv2.imdecode(
        np.frombuffer(events.Images("one")[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB
    )
    image, trimap, prediction, truth = np.split(panel, 4, axis=1)
    assert np.array_equal(image[..., ::-1], cv2.imread(str(photographs / "images" / "one.png")))
    assert (trimap == 128).all()
    assert np.array_equal(truth[..., 0], cv2.imread(str(photographs / "alphas" / "one.png"), 0))
    assert prediction.std() > 0


def test_validation_scores_photographs_and_keeps_the_best(tmp_path: Path, photographs: Path) -> None:
    config = _config(validation=ValidationConfig(root=photographs, every=2))
    _trainer(config, tmp_path / "run").fit()
    with (tmp_path / "run" / "metrics.csv").open() as file:
        scores = [float(row["sad"]) for row in csv.DictReader(file) if row["sad"]]
    assert len(scores) == 2
    assert float(
        checkpoint.read(tmp_path / "run" / "best.safetensors").provenance["validation_sad"]
    ) == pytest.approx(min(scores), abs=1e-3)


def test_an_annotation_list_is_scored_as_published(tmp_path: Path, photographs: Path) -> None:
    paths = {"merged": "images", "trimap": "trimaps", "alpha": "alphas", "fg": "images", "bg": "images"}
    entry = {f"{name}_path": f"{folder}/one.png" for name, folder in paths.items()}
    (tmp_path / "test_list.json").write_text(json.dumps([entry]))
    for root, data_root in ((photographs, None), (tmp_path / "test_list.json", photographs)):
        config = _config(validation=ValidationConfig(root=root, data_root=data_root, every=4))
        _trainer(config, tmp_path / root.stem).fit()
    rows = [
        (tmp_path / name / "metrics.csv").read_text().splitlines()[-1] for name in ("photos", "test_list")
    ]
    # All of the picture is unknown: both regions are the same.
    assert rows[0].split(",")[-4:] == rows[1].split(",")[-4:]
    assert all(float(value) > 0 for value in rows[0].split(",")[-4:])


def test_stage_2_needs_a_checkpoint_and_leaves_the_backbone_alone(tmp_path: Path) -> None:
    config = _config(network=NetworkConfig(stage=2, width=0.125, batch_norm=True), ema=None)
    with pytest.raises(InputError, match="stage 1"):
        _trainer(config, tmp_path)
    checkpoint.save(DIM(NetworkConfig(width=0.125, batch_norm=True)), tmp_path / "stage1.safetensors")
    _trainer(config, tmp_path / "run", init=tmp_path / "stage1.safetensors").fit()
    before, after = (
        _weights(tmp_path / "stage1.safetensors"),
        _weights(tmp_path / "run" / "final.safetensors"),
    )
    assert all(torch.equal(before[key], after[key]) for key in before)
    # Resuming takes everything from the run's own state.
    longer = config.model_copy(update={"steps": config.steps + 1})
    _trainer(longer, tmp_path / "run", resume=True).fit()
    assert after["refiner.refine_pred.bias"].abs().max() > 0


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ({"cue_radii": (4,)}, "cues of radii 4"),
        ({"propagation_steps": (1, 1)}, "propagation in 1, 1 steps"),
    ],
)
def test_stage_2_replaces_a_refiner_of_another_kind(
    tmp_path: Path, addition: dict[str, Any], named: str
) -> None:
    plain = NetworkConfig(stage=3, width=0.125, batch_norm=True)
    checkpoint.save(DIM(plain), tmp_path / "plain.safetensors")
    other = plain.model_copy(update={"stage": 2, **addition})
    before = _weights(tmp_path / "plain.safetensors")
    _trainer(_config(network=other, ema=None), tmp_path / "run", init=tmp_path / "plain.safetensors").fit()
    after = _weights(tmp_path / "run" / "final.safetensors")
    assert after["refiner.refine_conv1.weight"].shape[1] == other.refiner_inputs
    assert after["refiner.refine_pred.weight"].shape[0] == other.refiner_outputs
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("refiner."))
    with pytest.raises(CheckpointError, match=named):
        _trainer(
            _config(network=other.model_copy(update={"stage": 3})),
            tmp_path / "third",
            init=tmp_path / "plain.safetensors",
        )


def test_softening_scales_the_logits_that_a_run_starts_from(
    tmp_path: Path, live_model: Callable[..., DIM]
) -> None:
    checkpoint.save(live_model(stage=1, width=0.125), tmp_path / "live.safetensors")
    settings = {"network": NetworkConfig(width=0.125), "ema": None}
    plain, softened = (
        build_network(_config(**settings, soften=factor), tmp_path / "live.safetensors").eval()
        for factor in (1.0, 0.25)
    )
    picture = torch.rand(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = (model.matte(picture).logits for model in (plain, softened))
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected / 4)


def test_softening_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="soften logits"):
        build_network(_config(soften=0.25), None)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(
    tmp_path: Path, accumulate: int, live_model: Callable[..., DIM]
) -> None:
    # Weights that keep signals alive: with Xavier's the gradients are mere rounding noise.
    checkpoint.save(live_model(stage=1, width=0.125), tmp_path / "live.safetensors")
    settings = {"network": NetworkConfig(width=0.125), "batch": 4, "steps": 1, "ema": None}
    whole, parts = (
        _trained(_config(**settings, accumulate=n), tmp_path / str(n), tmp_path / "live.safetensors")
        for n in (1, accumulate)
    )
    for ours, theirs in zip(whole.run.model.parameters(), parts.run.model.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert (ours.grad - theirs.grad).norm() <= 1e-4 * ours.grad.norm()


def _trained(config: TrainConfig, folder: Path, init: Path) -> Trainer:
    trainer = _trainer(config, folder, init=init)
    trainer.fit()
    return trainer


def test_checkpoints_to_keep(tmp_path: Path) -> None:
    _trainer(_config(keep_every=2), tmp_path).fit()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-0000002.safetensors",
        "step-0000004.safetensors",
    ]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="diverged"):
        _trainer(_config(learning_rate=1e30, network=NetworkConfig(width=0.125), steps=8), tmp_path).fit()


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot resume"):
        _trainer(_config(), tmp_path, resume=True)


@given(st.data())
def test_every_schedule_that_fits_reaches_its_learning_rate_and_ends_at_zero(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 300))
    warmup = data.draw(st.integers(0, steps))
    decay = data.draw(st.integers(0, steps - warmup))
    config = _config(steps=steps, warmup_steps=warmup, decay_steps=decay)
    factors = [learning_rate_factor(config, step) for step in range(steps + 1)]
    assert max(factors) == 1
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[: max(1, warmup)] == sorted(factors[: max(1, warmup)])
    if decay:
        assert factors[-1] == pytest.approx(0, abs=1e-9)
        assert factors[steps - decay :] == sorted(factors[steps - decay :], reverse=True)


@pytest.mark.parametrize(
    "changes", [{"warmup_steps": 101}, {"decay_steps": 101}, {"warmup_steps": 60, "decay_steps": 50}]
)
def test_a_schedule_that_never_reaches_its_learning_rate_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="never reach"):
        _config(steps=100, **changes)


def test_learning_rate_warms_up_holds_and_decays_to_zero() -> None:
    config = _config(steps=100, warmup_steps=10, decay_steps=50)
    factors = [learning_rate_factor(config, step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:50] == [1.0] * 40
    assert factors[75] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
