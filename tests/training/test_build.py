"""Building a run: earlier runs are kept, devices are the ones named, changed settings are seen."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from dim import checkpoint, files
from dim.contract import NetworkConfig
from dim.errors import DimError, InputError
from dim.published import locate
from dim_runtime.errors import DeviceError
from dim_training import run_folder
from dim_training.build import build_run
from dim_training.config import DataConfig, TrainConfig, ValidationConfig, changed_settings
from dim_training.convert_run import convert_run
from dim_training.devices import open_accelerator
from dim_training.run_state import Position, read_state, whole_state
from dim_training.trainer import DivergenceError, Trainer

NETWORK = NetworkConfig(width=0.0625, batch_norm=True)


def _config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "network": NETWORK,
        "data": DataConfig(crop_sides=(32,), size=32, workers=0),
        "steps": 2,
        "batch": 2,
        "learning_rate": 1e-3,
        "checkpoint_every": 1,
        "log_every": 1,
        "ema": 0.9,
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a finished run of two steps."""
    Trainer(build_run(_config(), tmp_path / "run")).fit()
    return tmp_path / "run"


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_run_is_not_replaced_by_accident(run: Path) -> None:
    before = _files(run)
    with pytest.raises(InputError, match="--overwrite"):
        build_run(_config(), run)
    assert _files(run) == before
    (run / "notes.txt").write_text("mine")
    Trainer(build_run(_config(steps=1), run, overwrite=True)).fit()
    assert (run / "metrics.csv").read_text().count("\n") == 2
    assert (run / "notes.txt").read_text() == "mine"


def test_the_state_that_a_killed_run_put_aside_is_replaced_too(run: Path) -> None:
    (run / "last").rename(files._aside(run / "last"))
    for path in filter(Path.is_file, list(run.iterdir())):
        path.unlink()
    with pytest.raises(InputError, match="--overwrite"):
        build_run(_config(), run)
    run_folder.clear(run)
    assert whole_state(run) is None
    assert not any(run.iterdir())


def test_settings_before_a_change_stay_if_the_change_saved_nothing(run: Path) -> None:
    for step, rate in ((2, 1e-4), (2, 1e-5)):
        run_folder.write_config(run, _config(learning_rate=rate), step=step, changed=True)
    assert json.loads((run / "config-until-0000002.json").read_text())["learning_rate"] == 1e-3
    assert json.loads((run / "config.json").read_text())["learning_rate"] == 1e-5


@pytest.mark.parametrize("change", ["nothing", "no weights", "other photographs"])
def test_the_best_score_counts_with_its_weights_and_its_photographs(
    run: Path, tmp_path: Path, change: str
) -> None:
    def photographs(name: str) -> ValidationConfig:
        for folder in ("images", "trimaps", "alphas"):
            (tmp_path / name / folder).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / name / folder / "one.png"), np.full((32, 32), 128, np.uint8))
        return ValidationConfig(root=tmp_path / name)

    scored = photographs("scored")
    Trainer(build_run(_config(steps=1, validation=scored), run, overwrite=True)).fit()
    lowest = read_state(run).position.best
    assert lowest < inf
    if change == "no weights":
        (run / "best.safetensors").unlink()
    after = photographs("others") if change == "other photographs" else scored
    best = build_run(_config(validation=after), run, resume=True).position.best
    assert best == (lowest if change == "nothing" else inf)


def test_a_resumed_run_takes_changed_settings_and_records_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(build_run(_config(steps=3, learning_rate=1e-4), run, resume=True)).fit()
    rows = (run / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("learning_rate")
    assert [float(row.split(",")[column]) for row in rows[1:]] == [1e-3, 1e-3, 1e-4]
    assert json.loads((run / "config.json").read_text())["learning_rate"] == 1e-4
    assert json.loads((run / "config-until-0000002.json").read_text())["learning_rate"] == 1e-3
    assert "learning_rate: 0.001 → 0.0001" in capsys.readouterr().err


def test_the_first_resumed_step_moves_by_the_new_learning_rate(run: Path) -> None:
    before = checkpoint.read(run / "last" / "model.safetensors").state_dict
    Trainer(build_run(_config(steps=3, learning_rate=1e-30), run, resume=True)).fit()
    after = checkpoint.read(run / "last" / "model.safetensors").state_dict
    trained = [key for key in before if key.endswith("weight")]
    assert all(torch.equal(before[key], after[key]) for key in trained)


@pytest.mark.parametrize(
    "changes",
    [{"network": NetworkConfig(width=0.125, batch_norm=True)}, {"ema": None}, {"vgg": "weights.npz"}],
    ids=["network", "ema", "vgg"],
)
def test_settings_that_a_resumed_run_cannot_take(run: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot resume") as caught:
        build_run(_config(steps=3, **changes), run, resume=True)
    assert len(str(caught.value).splitlines()) < 10


def test_changes_are_named_by_their_key() -> None:
    before = _config().model_dump(mode="json")
    data = DataConfig(crop_sides=(64,), size=32, workers=0)
    assert changed_settings(before, _config(data=data, seed=3)) == [
        "data.crop_sides: [32] → [64]",
        "seed: 0 → 3",
    ]
    assert changed_settings(before, _config()) == []


@pytest.mark.parametrize("device", ["banana", "gpu", "cuda:", "cuda:99", "CPU"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(DeviceError):
        build_run(_config(), tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_is_refused_on_a_machine_without_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="0 CUDA devices"):
        build_run(_config(), tmp_path, device="cuda")
    with pytest.raises(InputError, match="fp16"):
        open_accelerator("auto", "fp16")


def test_the_data_is_checked_before_weights_are_looked_for(tmp_path: Path) -> None:
    config = _config(vgg="torchvision", data=DataConfig(kind="rgba", root=tmp_path / "none"))
    with pytest.raises(InputError, match="none"):
        build_run(config, tmp_path / "run")


def test_a_diverged_state_replaces_nothing(run: Path) -> None:
    trainer = Trainer(build_run(_config(steps=4, log_every=100), run, resume=True))
    with torch.no_grad():
        next(trainer.run.model.parameters()).fill_(float("nan"))
    before = _files(run / "last")
    with pytest.raises(DivergenceError, match="not finite"):
        trainer.fit()
    assert _files(run / "last") == before


def test_the_state_holds_no_pickles_and_strict_json(run: Path) -> None:
    assert {path.suffix for path in (run / "last").iterdir()} == {".safetensors", ".json"}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads((run / "last" / "state.json").read_text(), parse_constant=refuse)
    assert document["best"] is None
    assert read_state(run).position == Position(2, 4, document["seconds"])


def test_the_folders_of_a_run_name_weights(run: Path) -> None:
    averaged = checkpoint.read(locate(run / "last")).state_dict
    best = checkpoint.read(locate(run)).state_dict
    assert locate(run) == run / "best.safetensors"
    assert all(torch.equal(best[key], averaged[key]) for key in best)
    (run / "best.safetensors").unlink()
    assert locate(run) == run / "last" / "averaged.safetensors"
    with pytest.raises(InputError, match="cannot find weights"):
        locate(run.parent)


class _Trap:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _of_version_1(run: Path, folder: Path) -> Path:
    """Write a run's state as accelerate did, with pickles."""
    from safetensors.torch import save_file

    state = read_state(run)
    last = folder / "last"
    last.mkdir(parents=True)
    names = [name for name, _ in state.model.named_parameters()]
    save_file({f"model.{k}": v for k, v in state.model.state_dict().items()}, last / "model.safetensors")
    entries = {
        number: {key: state.moments[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for number, name in enumerate(names)
    }
    torch.save({"state": entries, "param_groups": []}, last / "optimizer.bin")
    torch.save({"last_epoch": 2}, last / "custom_checkpoint_0.pkl")
    assert state.averaged is not None
    averaged = {f"module.{key}": value for key, value in state.averaged.state_dict().items()}
    torch.save({"n_averaged": torch.tensor(state.averages), **averaged}, last / "custom_checkpoint_1.pkl")
    torch.save({"torch_manual_seed": torch.get_rng_state()}, last / "random_states_0.pkl")
    (last / "state.json").write_text('{"step": 2, "samples": 4, "seconds": 1.0, "best": Infinity}')
    return folder


def test_a_state_with_pickles_is_refused_and_can_be_converted(run: Path, tmp_path: Path) -> None:
    old = _of_version_1(run, tmp_path / "old")
    with pytest.raises(InputError, match="dim-train convert-run"):
        build_run(_config(steps=3), old, resume=True)
    with pytest.raises(InputError, match="--recipe"):
        convert_run(old, tmp_path / "new")
    convert_run(old, tmp_path / "new", NETWORK)
    for folder in (run, tmp_path / "new"):
        Trainer(build_run(_config(steps=3), folder, resume=True)).fit()
    ours, theirs = (checkpoint.read(f / "final.safetensors").state_dict for f in (run, tmp_path / "new"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"])
def test_nothing_in_a_strangers_folder_is_run(run: Path, tmp_path: Path, name: str) -> None:
    old = _of_version_1(run, tmp_path / "old")
    trap = tmp_path / "trapped"
    torch.save({"state": {}, "trap": _Trap(trap)}, old / "last" / name)
    with suppress(DimError):
        convert_run(old, tmp_path / "new", NETWORK)
    with pytest.raises(InputError):
        build_run(_config(steps=3), old, resume=True)
    assert not trap.exists()
    (tmp_path / "control.pkl").write_bytes(pickle.dumps(_Trap(trap)))
    pickle.loads((tmp_path / "control.pkl").read_bytes())
    assert trap.exists()


def test_a_damaged_state_is_an_error(run: Path) -> None:
    (run / "last" / "optimizer.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"damaged last/"):
        build_run(_config(steps=3), run, resume=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("random-0.safetensors", save({"cpu": torch.get_rng_state().float()})),
        ("random-0.safetensors", save({"cpu": torch.zeros(10, dtype=torch.uint8)})),
        ("state.json", b'{"format": 2, "step": -5}'),
        ("optimizer.safetensors", save({})),
    ],
    ids=["float32", "ten bytes", "step", "moments"],
)
def test_a_damaged_state_is_refused_before_anything_is_written(run: Path, name: str, content: bytes) -> None:
    (run / "last" / name).write_bytes(content)
    before = _files(run)
    with pytest.raises(InputError, match=r"(?s)cannot resume .*damaged last/"):
        build_run(_config(steps=3, learning_rate=1e-4), run, resume=True)
    assert _files(run) == before


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("change", [lambda t: t.to(torch.int32), lambda t: t * torch.nan, lambda t: t[None]])
def test_moments_that_the_optimiser_cannot_take(run: Path, key: str, change: Any) -> None:
    path = run / "last" / "optimizer.safetensors"
    moments = load_file(path)
    name = next(name for name in moments if name.endswith(f".{key}"))
    path.write_bytes(save(moments | {name: change(moments[name])}))
    with pytest.raises(InputError, match=r"(?s)damaged last/.*moments of"):
        build_run(_config(steps=3), run, resume=True)


def test_an_error_before_the_first_step_leaves_no_run(tmp_path: Path) -> None:
    run = build_run(_config(), tmp_path / "run")

    def fail(_: int) -> Any:
        raise OSError("the disk is gone")

    run.batches = map(fail, range(1))
    with pytest.raises(OSError, match="the disk is gone"):
        Trainer(run).fit()
    assert _files(tmp_path) == {}
    Trainer(build_run(_config(steps=1), tmp_path / "run")).fit()
