"""Checkpoints of every kind: OpenMMLab's of 2020 and of today, bare state dicts, our own."""

from __future__ import annotations

import json
import stat
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dim import checkpoint
from dim.contract import METADATA_KEY, NetworkConfig
from dim.errors import CheckpointError
from dim.network import DIM

LEGACY, ZIP = False, True
formats = pytest.mark.parametrize("zipped", [LEGACY, ZIP], ids=["legacy", "zip"])


@pytest.fixture(scope="module")
def model(live_model: Any) -> DIM:
    made: DIM = live_model(stage=3)
    return made


@pytest.fixture(scope="module")
def stage_1(live_model: Any) -> DIM:
    made: DIM = live_model(stage=1, seed=1)
    return made


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def _openmmlab(model: DIM, **meta: Any) -> dict[str, Any]:
    return {
        "meta": {"mmedit_version": "0.5.0", "iter": 1_000_000, "epoch": 1, **meta},
        "state_dict": model.state_dict(),
    }


def _save(content: Any, path: Path, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture
def forgotten_class() -> Any:
    """Return an object whose class is gone when it is loaded."""
    module = types.ModuleType("mmcv_of_2020")
    exec("class HookMessages(dict):\n    pass\nclass Config:\n    pass\n", module.__dict__)
    sys.modules["mmcv_of_2020"] = module
    messages, config = module.HookMessages(best=50.6), module.Config()
    config.text, config.children = "lr = 1e-5", [messages]
    yield config
    sys.modules.pop("mmcv_of_2020", None)


@formats
def test_openmmlab_file(model: DIM, tmp_path: Path, zipped: bool) -> None:
    loaded = checkpoint.load(_save(_openmmlab(model), tmp_path / "dim.pth", zipped))
    assert _same(loaded.state_dict(), model.state_dict())
    assert loaded.config == NetworkConfig(stage=3, width=0.125)
    assert not loaded.training


@formats
def test_unknown_classes_in_meta_become_placeholders(
    model: DIM, tmp_path: Path, zipped: bool, forgotten_class: Any
) -> None:
    content = _openmmlab(model, hook_msgs=forgotten_class, env=OrderedDict(seed=0), tags={"a"}, home=tmp_path)
    path = _save(content, tmp_path / "dim.pth", zipped)
    del sys.modules["mmcv_of_2020"]
    assert _same(checkpoint.load(path).state_dict(), model.state_dict())


@formats
def test_module_prefix(model: DIM, tmp_path: Path, zipped: bool) -> None:
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    path = _save({"meta": {}, "state_dict": wrapped}, tmp_path / "dim.pth", zipped)
    assert _same(checkpoint.load(path).state_dict(), model.state_dict())


@formats
def test_bare_state_dict(model: DIM, tmp_path: Path, zipped: bool) -> None:
    path = _save(model.state_dict(), tmp_path / "dim.pth", zipped)
    assert _same(checkpoint.load(path).state_dict(), model.state_dict())


def test_parameters_half_precision_and_shared_storage(model: DIM, tmp_path: Path) -> None:
    state: dict[str, Any] = {key: value.half() for key, value in model.state_dict().items()}
    first = next(iter(state))
    state[first] = torch.nn.Parameter(torch.cat([state[first]] * 2)[: len(state[first])])
    loaded = checkpoint.load(_save(state, tmp_path / "dim.pth", ZIP)).state_dict()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert torch.equal(loaded[first], state[first].detach().float())


def test_batch_norm_and_width_show_in_the_keys(live_model: Any, tmp_path: Path) -> None:
    model = live_model(stage=1, batch_norm=True)
    loaded = checkpoint.load(_save(model.state_dict(), tmp_path / "dim.pth", LEGACY))
    assert loaded.config == model.config
    assert _same(loaded.state_dict(), model.state_dict())


def test_stage_1_begins_stage_2(stage_1: DIM, tmp_path: Path) -> None:
    path = _save(_openmmlab(stage_1), tmp_path / "stage1.pth", LEGACY)
    begun = checkpoint.load(path, stage=2)
    assert begun.config.stage == 2
    assert begun.refiner is not None
    found = begun.state_dict()
    assert all(torch.equal(found[key], value) for key, value in stage_1.state_dict().items())


def test_a_torn_refiner_is_no_fresh_one(model: DIM, tmp_path: Path) -> None:
    state = {key: value for key, value in model.state_dict().items() if key != "refiner.refine_pred.bias"}
    with pytest.raises(CheckpointError, match=r"missing \(1\):\n\s+refiner\.refine_pred\.bias"):
        checkpoint.load(_save(state, tmp_path / "dim.pth", ZIP))


def test_differences_are_listed_readably(model: DIM, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    del state["backbone.encoder.conv6.bias"]
    state["backbone.decoder.deconv1.weight"] = torch.zeros(1, 8, 3, 3)
    state["neck.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(_save(state, tmp_path / "dim.pth", ZIP))
    text = str(caught.value)
    assert "missing (1):\n    backbone.encoder.conv6.bias  (64,)" in text
    assert "unexpected (1):\n    neck.weight  (3,)" in text
    assert "backbone.decoder.deconv1.weight  got (1, 8, 3, 3), expected (1, 8, 5, 5)" in text
    assert "DIM stage 3, width 0.125" in text


def test_long_lists_are_cut(model: DIM, tmp_path: Path) -> None:
    first = dict(list(model.state_dict().items())[:1])
    with pytest.raises(CheckpointError, match="and 33 more"):
        checkpoint.load(_save(first, tmp_path / "dim.pth", ZIP))


@pytest.mark.parametrize("half", [False, True])
def test_own_format_round_trip(live_model: Any, tmp_path: Path, half: bool) -> None:
    model = live_model(stage=2, batch_norm=True)
    checkpoint.save(
        model, tmp_path / "deep" / "dim.safetensors", provenance={"data": "procedural"}, half=half
    )
    path = tmp_path / "deep" / "dim.safetensors"
    assert [entry.name for entry in path.parent.iterdir()] == ["dim.safetensors"]
    contents = checkpoint.read(path)
    assert contents.config == model.config
    assert contents.provenance == {"data": "procedural"}
    for key, value in model.state_dict().items():
        expected = value.half().float() if half and value.is_floating_point() else value
        assert torch.equal(contents.state_dict[key], expected), key
        assert contents.state_dict[key].dtype == value.dtype


def test_own_format_is_as_readable_as_any_new_file(model: DIM, tmp_path: Path) -> None:
    path, other = tmp_path / "dim.safetensors", tmp_path / "other"
    checkpoint.save(model, path)
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_safetensors_without_our_header(model: DIM, tmp_path: Path) -> None:
    save_file(dict(model.state_dict()), tmp_path / "dim.safetensors")
    assert checkpoint.load(tmp_path / "dim.safetensors").config.stage == 3


@pytest.mark.parametrize("document", ["no json", "[]", "{}", json.dumps({"network": {"width": 7}})])
def test_a_damaged_header_is_a_typed_error(model: DIM, tmp_path: Path, document: str) -> None:
    save_file(dict(model.state_dict()), tmp_path / "dim.safetensors", metadata={METADATA_KEY: document})
    with pytest.raises(CheckpointError, match="header"):
        checkpoint.load(tmp_path / "dim.safetensors")


@pytest.mark.parametrize("channels", [0, 3, 200])
def test_a_network_of_an_impossible_width_is_a_typed_error(tmp_path: Path, channels: int) -> None:
    state = {"backbone.encoder.layer1.0.weight": torch.zeros(channels, 4, 3, 3)}
    with pytest.raises(CheckpointError):
        checkpoint.load(_save(state, tmp_path / "dim.pth", ZIP))


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {"a": 1}}, {"model": torch.zeros(1)}, "text"])
@formats
def test_no_dim_in_the_file(tmp_path: Path, content: Any, zipped: bool) -> None:
    with pytest.raises(CheckpointError, match="cannot use"):
        checkpoint.load(_save(content, tmp_path / "dim.pth", zipped))


@pytest.mark.parametrize("suffix", [".onnx", ".engine"])
def test_an_artefact_in_place_of_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x08\x08")
    with pytest.raises(CheckpointError, match=r"an exported artefact[^$]*dim-export inspect"):
        checkpoint.load(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.load(tmp_path / "absent.pth")
