"""A packed run is half as large, and training continues from it as from the whole, but for rounding."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import InputError
from dim_training.build import build_run
from dim_training.config import DataConfig, TrainConfig, read_config
from dim_training.pack_run import pack_run
from dim_training.run_state import whole_state
from dim_training.trainer import Trainer

ROOT = Path(__file__).parents[2]


def _config(steps: int) -> TrainConfig:
    return TrainConfig(
        network=NetworkConfig(width=0.125, batch_norm=True),
        data=DataConfig(crop_sides=(64,), size=64, workers=0),
        steps=steps, batch=2, learning_rate=1e-3, checkpoint_every=2, log_every=2, ema=0.9,
    )  # fmt: skip


def _trainer(config: TrainConfig, output: Path, **options: Any) -> Trainer:
    return Trainer(build_run(config, output, **options))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of four steps."""
    _trainer(_config(4), tmp_path / "run").fit()
    return tmp_path / "run"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_a_packed_run_holds_the_same_state_rounded(run: Path, tmp_path: Path) -> None:
    written = pack_run(run, tmp_path / "packed")
    whole, packed = (_trainer(_config(6), tmp_path / name, resume=True) for name in ("run", "packed"))

    beside = sum((run / name).stat().st_size for name in ("metrics.csv", "metrics.jsonl", "config.json"))
    assert written == _size(tmp_path / "packed" / "last") + beside
    assert _size(tmp_path / "packed" / "last") < 0.6 * _size(run / "last")
    assert packed.position == whole.position
    for key, value in whole.run.model.state_dict().items():
        torch.testing.assert_close(packed.run.model.state_dict()[key], value, rtol=2**-11, atol=1e-7)
    for key, value in whole.run.shipped.state_dict().items():
        torch.testing.assert_close(packed.run.shipped.state_dict()[key], value, rtol=2**-11, atol=1e-7)
    moments, rounded = (t.run.optimiser.state_dict()["state"] for t in (whole, packed))
    assert len(moments) > 0
    for number, entry in moments.items():
        assert rounded[number]["step"] == entry["step"] == 4
        for name in ("exp_avg", "exp_avg_sq"):
            assert entry[name].any()
            torch.testing.assert_close(rounded[number][name], entry[name], rtol=2**-8, atol=0)


def test_training_goes_on_from_a_packed_run(run: Path, tmp_path: Path) -> None:
    pack_run(run, tmp_path / "packed")
    trainer = _trainer(_config(6), tmp_path / "packed", resume=True)
    trainer.fit()
    assert trainer.position.step == 6
    lines = (tmp_path / "packed" / "metrics.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == [2, 4, 6]


def test_a_run_packed_without_moments_starts_adam_again(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pack_run(run, tmp_path / "packed", moments=False)
    assert not (tmp_path / "packed" / "last" / "optimizer.safetensors").exists()
    # Packing it once more keeps it as it is.
    pack_run(tmp_path / "packed", tmp_path / "again")
    trainer = _trainer(_config(5), tmp_path / "again", resume=True)
    assert trainer.position.step == 4
    trainer.fit()
    assert "changed from step 4 on: Adam's moments: packed without them → zero" in capfd.readouterr().err
    assert {int(entry["step"]) for entry in trainer.run.optimiser.state_dict()["state"].values()} == {1}
    # From here on the run's state is whole.
    assert _trainer(_config(6), tmp_path / "again", resume=True).run.changes == ["steps: 5 → 6"]


def test_a_missing_file_of_moments_is_damage(run: Path) -> None:
    (run / "last" / "optimizer.safetensors").unlink()
    with pytest.raises(InputError, match="damaged last/"):
        _trainer(_config(6), run, resume=True)


def test_what_cannot_be_packed_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no last/ in it"):
        pack_run(tmp_path / "elsewhere", tmp_path / "packed")
    with pytest.raises(InputError, match="it exists"):
        pack_run(run, run)
    assert whole_state(run) == run / "last"


def test_a_weight_beyond_float16_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    file = run / "last" / "model.safetensors"
    model = checkpoint.load(file)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e6
    checkpoint.save(model, file)
    with pytest.raises(InputError, match="cannot pack a weight as float16"):
        pack_run(run, tmp_path / "packed")
    shutil.rmtree(run)
    assert not list(tmp_path.iterdir())


def test_the_shipped_run_goes_on_from_the_embedded_weights(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "training" / "runs" / "dim-compact", tmp_path / "further")
    # In float32: accelerate has one precision for a process, and the tests before use that.
    overrides = ["data.kind=procedural", "data.workers=0", "batch=1", "steps=4801", "precision=fp32"]
    overrides += ["decay_steps=0"]
    recipe = read_config(ROOT / "training" / "configs" / "compact_stage3_longer.toml", overrides)
    trainer = _trainer(recipe, tmp_path / "further", resume=True)

    assert trainer.position.step == 4800
    embedded = checkpoint.load(ROOT / "runtime" / "dim_runtime" / "models" / "dim-compact.safetensors")
    assert all(
        torch.equal(trainer.run.shipped.state_dict()[key], value)
        for key, value in embedded.state_dict().items()
    )
    trainer.fit()
    assert (tmp_path / "further" / "final.safetensors").is_file()
