"""A signal ends a run after the step in progress, with its state saved; resumed, it ends in the same bits."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dim.contract import NetworkConfig
from dim_training.build import Run, build_run
from dim_training.config import DataConfig, TrainConfig
from dim_training.data.dataset import build_scenes
from dim_training.data.loader import STOP_SIGNALS, Batch, build_loader
from dim_training.run_state import read_state
from dim_training.trainer import StopRequest, Trainer

STEPS, AT = 5, 3
DATA = DataConfig(crop_sides=(64,), size=64, workers=0, photometric=True, compose="device")


def _run(output: Path, *, resume: bool = False, **changes: Any) -> Run:
    settings: dict[str, Any] = {
        "network": NetworkConfig(width=0.125, batch_norm=True), "data": DATA, "steps": STEPS, "batch": 2,
        "learning_rate": 1e-3, "log_every": 1, "ema": 0.9,
    }  # fmt: skip
    return build_run(TrainConfig(**(settings | changes)), output, resume=resume, device="cpu")


def _before_batch(batches: Iterator[Batch], number: int, act: Callable[[], None]) -> Iterator[Batch]:
    """Yield the batches, and act before one of them; the first has number 1."""
    for count, batch in enumerate(batches, start=1):
        if count == number:
            act()
        yield batch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    Trainer(_run(folder)).fit()
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_in_progress(
    number: signal.Signals, code: int | None, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, handlers = _run(tmp_path), [signal.getsignal(each) for each in STOP_SIGNALS]
    run.batches = _before_batch(run.batches, AT, lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as raised:
        Trainer(run).fit()
    assert getattr(raised.value, "code", None) == code
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers
    assert f"last/ has the state of step {AT}; to continue: the same command with --resume" in (
        capfd.readouterr().err
    )
    assert read_state(tmp_path).position.step == AT

    Trainer(_run(tmp_path, resume=True)).fit()
    for name in ("final.safetensors", "last/model.safetensors", "last/optimizer.safetensors"):
        one, other = (load_file(folder / name) for folder in (whole, tmp_path))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert _losses(tmp_path) == _losses(whole)


def _losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def test_a_signal_in_the_last_step_leaves_a_finished_run(tmp_path: Path) -> None:
    run = _run(tmp_path, steps=2)
    run.batches = _before_batch(run.batches, 2, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        Trainer(run).fit()
    assert (tmp_path / "final.safetensors").is_file()


def test_states_are_saved_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Run, "save_state", lambda run: saved.append(run.position.step))
    # Every step takes longer than the first limit, and no run takes a day.
    for seconds, steps in ((1e-9, [1, 2, 3]), (86400.0, [3])):
        saved.clear()
        Trainer(_run(tmp_path / str(seconds), steps=3, checkpoint_seconds=seconds)).fit()
        assert saved == steps


def test_a_second_signal_acts_at_once() -> None:
    request = StopRequest()
    with request.noted():
        signal.raise_signal(signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_in_another_thread_leaves_the_handlers_alone() -> None:
    found: list[Any] = []

    def look() -> None:
        with StopRequest().noted():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("others", [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
def test_processes_stop_and_save_after_the_same_step(others: list[float], tmp_path: Path) -> None:
    trainer = Trainer(_run(tmp_path))
    trainer.accelerator = SimpleNamespace(  # type: ignore[assignment]
        num_processes=2,
        device=torch.device("cpu"),
        reduce=lambda mine: mine + torch.tensor(others),
    )
    assert trainer._agreed_requests() == (others[0] > 0, others[1] > 0)


def test_loader_processes_survive_a_signal_to_the_group(tmp_path: Path) -> None:
    config = _run(tmp_path).config.model_copy(update={"data": DATA.model_copy(update={"workers": 1})})
    count = 8  # more batches than are made ahead
    indices = range(config.batch * count)
    loader = build_loader(config, build_scenes(config.data, config.seed), indices, pinned=False)
    next(loader)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    for number in STOP_SIGNALS:
        os.kill(worker.pid, number)
    assert len(list(loader)) == count - 1
