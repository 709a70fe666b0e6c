"""Other people's checkpoints: the alpha of their network, stated again here, or a refusal with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dim import checkpoint
from dim.checkpoint.foreign_layouts import FOAMLIU, HUOCHAITIANTANG, OtherNetworkError, translate
from dim.errors import CheckpointError

Weights = dict[str, Tensor]

DEPTHS = (2, 2, 3, 3, 3)
"""3×3 convolutions before each pool."""


def huochaitiantang_weights(*, refiner: bool, conv6: int = 1, inputs: int = 4, width: int = 4) -> Weights:
    """Random weights under the names of huochaitiantang/pytorch-deep-image-matting; ``width`` is 64 there."""
    shapes: dict[str, tuple[int, int, int]] = {}
    before = inputs
    for level, depth in enumerate(DEPTHS, start=1):
        channels = width * min(2 ** (level - 1), 8)
        for index in range(1, depth + 1):
            shapes[f"conv{level}_{index}"] = (channels, before, 3)
            before = channels
    deepest = width * 8
    shapes |= {"conv6_1": (deepest, deepest, conv6), "deconv6_1": (deepest, deepest, 1)}
    for level, channels in ((5, deepest), (4, width * 4), (3, width * 2), (2, width), (1, width)):
        shapes[f"deconv{level}_1"] = (channels, before, 5)
        before = channels
    shapes["deconv1"] = (1, width, 5)
    if refiner:
        shapes |= {
            "refine_conv1": (width, 4, 3),
            "refine_conv2": (width, width, 3),
            "refine_conv3": (width, width, 3),
            "refine_pred": (1, width, 3),
        }
    return _drawn(shapes)


def _drawn(shapes: dict[str, tuple[int, int, int]]) -> Weights:
    draw = torch.Generator().manual_seed(0)
    weights: Weights = {}
    for name, (outputs, inputs, side) in shapes.items():
        gain = 8 if name.startswith("deconv") and name.endswith("_1") else 2
        scale = (gain / (inputs * side * side)) ** 0.5
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=draw) * scale
        weights[f"{name}.bias"] = torch.rand(outputs, generator=draw) * 0.1 - 0.05
    return weights


def huochaitiantang_alpha(weights: Weights, x: Tensor) -> Tensor:
    """Compute that repository's network of 2019, written from its description and without our code."""

    def conv(name: str, value: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(value, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    value, places = x, []
    for level, depth in enumerate(DEPTHS, start=1):
        for index in range(1, depth + 1):
            value = conv(f"conv{level}_{index}", value).clamp(min=0)
        value, place = F.max_pool2d(value, 2, 2, return_indices=True)
        places.append(place)
    value = conv("conv6_1", value).clamp(min=0)
    for level in (6, 5, 4, 3, 2, 1):
        value = conv(f"deconv{level}_1", value).clamp(min=0)
        if places:
            value = F.max_unpool2d(value, places.pop(), 2, 2)
    logits = conv("deconv1", value)
    if "refine_pred.weight" not in weights:
        return logits.sigmoid()
    value = torch.cat([x[:, :3], logits.sigmoid()], 1)
    for name in ("refine_conv1", "refine_conv2", "refine_conv3"):
        value = conv(name, value).clamp(min=0)
    return (logits + conv("refine_pred", value)).sigmoid()


def _saved(weights: Weights, path: Path, **more: Any) -> Path:
    torch.save({"epoch": 12, "best_sad": 57.1, "state_dict": weights, **more}, path)
    return path


@pytest.mark.parametrize("refiner", [False, True], ids=["stage 1", "stage 3"])
def test_the_accepted_layout_gives_the_same_alpha(tmp_path: Path, refiner: bool) -> None:
    weights = huochaitiantang_weights(refiner=refiner)
    path = _saved(weights, tmp_path / "stage1_sad_57.1.pth")
    model = checkpoint.load(path).double()
    assert model.config.width == 4 / 64
    assert model.config.has_refiner == refiner

    x = torch.randn(2, 4, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        theirs = huochaitiantang_alpha({key: value.double() for key, value in weights.items()}, x)
        ours = model(x)
    assert theirs.std() > 0.01  # the weights keep the signal alive
    assert (ours - theirs).abs().max() < 1e-12
    assert checkpoint.read(path).provenance == {"layout": HUOCHAITIANTANG}


def test_module_prefixes_and_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = huochaitiantang_weights(refiner=False)
    prefixed = {f"module.{key}": value for key, value in weights.items()}
    one = checkpoint.load(_saved(prefixed, tmp_path / "parallel.pth"))
    save_file(weights, tmp_path / "plain.safetensors")
    other = checkpoint.load(tmp_path / "plain.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_our_own_keys_are_left_alone(live_model: Any) -> None:
    state_dict = live_model().state_dict()
    found = translate(state_dict, source="x")
    assert found.origin is None
    assert list(found.state_dict) == list(state_dict)


def test_what_is_missing_or_too_much_is_still_reported(tmp_path: Path) -> None:
    weights = huochaitiantang_weights(refiner=False)
    del weights["deconv3_1.bias"]
    weights["trimap_head.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(_saved(weights, tmp_path / "fork.pth"))
    assert "backbone.decoder.deconv3_1.bias" in str(caught.value)
    assert "trimap_head.weight" in str(caught.value)


def _refused(weights: Weights, path: Path) -> OtherNetworkError:
    with pytest.raises(OtherNetworkError) as caught:
        checkpoint.load(_saved(weights, path))
    assert HUOCHAITIANTANG in str(caught.value)
    return caught.value


def test_a_wider_conv6_is_another_network(tmp_path: Path) -> None:
    error = _refused(huochaitiantang_weights(refiner=False, conv6=3), tmp_path / "stage1_sad_54.4.pth")
    (difference,) = error.differences
    assert "conv6_1 is 3×3" in difference
    assert "v1.5" in difference


@pytest.mark.parametrize(("inputs", "kind"), [(3, "without a trimap"), (5, "gradient"), (6, "others")])
def test_other_inputs_are_another_network(tmp_path: Path, inputs: int, kind: str) -> None:
    error = _refused(huochaitiantang_weights(refiner=False, inputs=inputs), tmp_path / "inputs.pth")
    (difference,) = error.differences
    assert difference.startswith(f"{inputs} input channels")
    assert kind in difference


def test_batch_norm_is_another_network_and_all_differences_are_named(tmp_path: Path) -> None:
    weights = huochaitiantang_weights(refiner=True, conv6=3, inputs=5)
    weights |= {"bn11.running_mean": torch.zeros(4), "bn11.weight": torch.ones(4)}
    error = _refused(weights, tmp_path / "bn.pth")
    assert [word in " ".join(error.differences) for word in ("batch norm", "5 input", "3×3")] == [True] * 3
    assert len(error.differences) == 3


def _foamliu_weights() -> Weights:
    """Return a few keys of foamliu/Deep-Image-Matting-PyTorch."""
    return {
        "down1.conv1.cbr_unit.0.weight": torch.zeros(64, 4, 3, 3),
        "down1.conv1.cbr_unit.1.running_mean": torch.zeros(64),
        "up1.conv.cbr_unit.0.weight": torch.zeros(1, 64, 5, 5),
    }


def test_foamliu_is_another_network(tmp_path: Path) -> None:
    torch.save(_foamliu_weights(), tmp_path / "foamliu.pth")
    with pytest.raises(OtherNetworkError, match=FOAMLIU) as caught:
        checkpoint.load(tmp_path / "foamliu.pth")
    assert any("deconv6_1" in difference for difference in caught.value.differences)
    assert any("ReLU" in difference for difference in caught.value.differences)


class Whole(torch.nn.Module):
    """A foreign network class; a checkpoint may hold an object of it."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = torch.nn.Conv2d(4, 4, 3)


@pytest.mark.parametrize("zipped", [False, True], ids=["legacy", "zip"])
def test_a_whole_pickled_model_is_refused_with_what_to_do(tmp_path: Path, zipped: bool) -> None:
    model = torch.nn.DataParallel(Whole())
    content = {"epoch": 3, "epochs_since_improvement": 0, "loss": 0.1, "model": model}
    torch.save(content, tmp_path / "BEST_checkpoint.tar", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict") as caught:
        checkpoint.load(tmp_path / "BEST_checkpoint.tar")
    assert FOAMLIU in str(caught.value)
