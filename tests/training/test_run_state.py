"""The files of a run's state, damaged: errors of ours. `make fuzz` found the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import InputError
from dim.network import DIM
from dim_training.run_state import FORMAT, read_generators, read_state, write_tensors

DOCUMENT = {"step": 3, "samples": 12, "seconds": 4.5, "best": None, "averages": 3, "scaler": {"scale": 2.0}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "last").mkdir()
    checkpoint.save(DIM(NetworkConfig(stage=1, width=1 / 32)).eval(), folder / "last" / "model.safetensors")
    write_tensors(folder / "last" / "optimizer.safetensors", {})
    return folder


def write(run: Path, document: dict[str, Any]) -> None:
    (run / "last" / "state.json").write_text(json.dumps({"format": FORMAT, **document}))


def test_a_whole_state_is_read(run: Path) -> None:
    write(run, DOCUMENT)
    assert read_state(run).position.step == 3


@pytest.mark.parametrize(
    "change",
    [
        {"step": float("inf")},
        {"samples": float("nan")},
        {"seconds": 10**400},
        {"best": 10**400},
        {"averages": float("inf")},
        {"scaler": {"scale": 10**400}},
        {"scaler": []},
    ],
    ids=str,
)
def test_numbers_that_no_state_has(run: Path, change: dict[str, Any]) -> None:
    write(run, DOCUMENT | change)
    with pytest.raises(InputError, match="damaged last/"):
        read_state(run)


def test_a_deeply_nested_document(run: Path) -> None:
    (run / "last" / "state.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_state(run)


def test_damaged_states_of_generators(run: Path) -> None:
    write(run, DOCUMENT)
    (run / "last" / "random-0.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"(?s)damaged last/.*random-0\.safetensors"):
        read_generators(run, 0)
    assert read_generators(run, 1) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"step": 0},
        {"step": -5},
        {"step": 10**30},
        {"step": True},
        {"samples": -1},
        {"seconds": float("nan")},
        {"best": float("nan")},
        {"best": -1.0},
        {"averages": -1},
        {"scaler": {"scale": float("nan")}},
    ],
    ids=str,
)
def test_numbers_out_of_bounds(run: Path, change: dict[str, Any]) -> None:
    write(run, DOCUMENT | change)
    (name,) = change
    with pytest.raises(InputError, match=rf"(?s)damaged last/.*why: state\.json: {name}"):
        read_state(run)


@pytest.mark.parametrize(
    "states",
    [
        {},
        {"cpu": torch.get_rng_state()[:10]},
        {"cpu": torch.get_rng_state().float()},
        {"cpu": torch.full_like(torch.get_rng_state(), 255)},
    ],
    ids=["none", "ten bytes", "float32", "junk"],
)
def test_states_that_no_generator_takes(run: Path, states: dict[str, torch.Tensor]) -> None:
    write(run, DOCUMENT)
    before = torch.get_rng_state()
    write_tensors(run / "last" / "random-0.safetensors", states)
    with pytest.raises(InputError, match=r"(?s)damaged last/.*random-0\.safetensors"):
        read_generators(run, 0)
    assert torch.equal(torch.get_rng_state(), before)
