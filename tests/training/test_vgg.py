"""VGG-16's weights in the encoder: the same function of the image, blind to the trimap."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dim.contract import NetworkConfig
from dim.errors import CheckpointError, InputError
from dim.network import DIM, ENCODER_STAGES, normalise
from dim_training.vgg import initialise_encoder, load_vgg16


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(0)
    arrays, inputs = {}, 3
    for block, (outputs, depth) in enumerate(ENCODER_STAGES, 1):
        for layer in range(1, depth + 1):
            scale = np.sqrt(2 / (9 * inputs))
            arrays[f"block{block}_conv{layer}.weight"] = draw.normal(0, scale, (outputs, inputs, 3, 3))
            arrays[f"block{block}_conv{layer}.bias"] = draw.normal(0, 0.1, outputs)
            inputs = outputs
    path = tmp_path_factory.mktemp("vgg") / "vgg.npz"
    np.savez(path, **{name: array.astype(np.float16) for name, array in arrays.items()})
    return path


def test_first_convolution_computes_what_the_archive_s_does(archive: Path) -> None:
    model = DIM(NetworkConfig())
    initialise_encoder(model, load_vgg16(str(archive)))
    image = torch.rand(1, 3, 32, 32) * 255
    found = model.backbone.encoder.get_submodule("layer1.0")(normalise(image, torch.rand(1, 1, 32, 32) * 255))

    with np.load(archive) as arrays:
        weight, bias = (
            torch.from_numpy(arrays[f"block1_conv1.{n}"].astype(np.float32)) for n in ("weight", "bias")
        )
    # ImageNet's mean, as our normalisation has it, stands in for the archive's: they differ by 0.005.
    bgr = (image - torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)).flip(1)
    torch.testing.assert_close(found, F.conv2d(bgr, weight, bias, padding=1), atol=1e-3, rtol=1e-3)


def test_the_trimap_channel_starts_at_zero(archive: Path) -> None:
    model = DIM(NetworkConfig())
    initialise_encoder(model, load_vgg16(str(archive)))
    weight = model.get_parameter("backbone.encoder.layer1.0.weight")
    assert (weight[:, 3] == 0).all()
    assert (weight[:, :3] != 0).any()


def test_a_narrow_encoder_keeps_the_strongest_filters(archive: Path) -> None:
    layers = load_vgg16(str(archive))
    model = DIM(NetworkConfig(width=0.25, batch_norm=True))
    initialise_encoder(model, layers)
    strongest = layers[0][0].abs().sum((1, 2, 3)).topk(16).indices.sort().values
    found: Tensor = model.get_parameter("backbone.encoder.layer1.0.weight")
    cosines = F.cosine_similarity(found[:, :3].flatten(1), layers[0][0][strongest].flatten(1))
    torch.testing.assert_close(cosines, torch.ones(16))


def test_before_batch_norm_filters_have_he_s_norm_and_see_the_trimap(archive: Path) -> None:
    model = DIM(NetworkConfig(width=0.25, batch_norm=True))
    initialise_encoder(model, load_vgg16(str(archive)))
    weight = model.get_parameter("backbone.encoder.layer1.0.weight")
    torch.testing.assert_close(weight[:, :3].flatten(1).norm(dim=1), torch.full((16,), 2**0.5))
    assert (weight[:, 3] != 0).all()


def test_torchvision_state_dict_and_bad_files(archive: Path, tmp_path: Path) -> None:
    layers = load_vgg16(str(archive))
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    named = {
        f"features.{i}.{n}": t
        for i, layer in zip(indices, layers, strict=True)
        for n, t in zip(("weight", "bias"), layer, strict=True)
    }
    torch.save(named, tmp_path / "vgg.pth")
    assert all(
        torch.equal(a[0], b[0]) for a, b in zip(load_vgg16(str(tmp_path / "vgg.pth")), layers, strict=True)
    )
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="torchvision's names"):
        load_vgg16(str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match="no such file"):
        load_vgg16(str(tmp_path / "none.npz"))


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_random_bytes_are_a_checkpoint_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(CheckpointError, match=r"cannot read"):
        load_vgg16(str(path))


@pytest.mark.parametrize(
    "weight", [None, 3, torch.zeros(64, 3, 3), torch.zeros(64, 3, 3, 3, dtype=torch.int64)]
)
def test_entries_that_are_no_convolutions(tmp_path: Path, weight: Any) -> None:
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    named = {f"features.{i}.{n}": torch.zeros(1) for i in indices for n in ("weight", "bias")}
    torch.save(named | {"features.0.weight": weight}, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match=r"(?s)cannot use these VGG-16 weights.*\(64, 3, 3, 3\)"):
        load_vgg16(str(tmp_path / "vgg.pth"))


def test_without_a_network_the_error_names_a_place_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models.vgg16", unreachable)
    with pytest.raises(InputError, match=r"(?s)Name or service not known.*vgg16-397923af\.pth.*vgg=FILE"):
        load_vgg16("torchvision")
