"""Composition on the device makes the loader's samples."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from dim import trimap as trimaps
from dim_training.config import DataConfig
from dim_training.data import augmentation, on_device
from dim_training.data.dataset import Sample, build_dataset
from dim_training.data.on_device import PackedParts, build_parts, compose, random_trimaps

CPU = torch.device("cpu")
COUNT = 8


def _both(**settings: Any) -> tuple[Sample, Sample]:
    """Return the same samples from the loader and from the device."""
    config = DataConfig(crop_sides=(96, 128), size=64, trimap_sizes=(1, 23), workers=0, **settings)
    loader, parts = (build(config, seed=3, length=COUNT) for build in (build_dataset, build_parts))
    expected = Sample(*default_collate([tuple(loader[i]) for i in range(COUNT)]))
    packed = PackedParts(*default_collate([tuple(parts[i]) for i in range(COUNT)]))
    return expected, compose(packed, CPU)


def _levels(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) * 255


def test_without_changes_of_colour_both_make_the_same() -> None:
    expected, found = _both()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert torch.equal(found.unknown, expected.unknown)


def test_colours_agree_to_a_gray_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "DEFOCUSED", 0.6)
    expected, found = _both(photometric=True)
    assert _levels(found.foreground, expected.foreground) <= 1.01
    assert _levels(found.background, expected.background) <= 2.01
    assert float((found.background - expected.background).abs().mean()) * 255 < 0.3
    assert torch.equal(found.unknown, expected.unknown)
    assert torch.equal(found.alpha, expected.alpha)


def test_light_is_mixed_as_in_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFOCUSED", "NOISY", "COMPRESSED"):
        monkeypatch.setattr(augmentation, name, 0.0)
    expected, found = _both(photometric=True, exponents=(1.8, 2.2))
    encoded, _ = _both(photometric=True)
    for ours, theirs in zip(found, expected, strict=True):
        # A level of a tone is at most exponent levels of light.
        assert _levels(ours, theirs) <= 2.2 * 1.01 / 0.225
    assert float((found.image - expected.image).abs().mean()) * 255 < 0.3
    assert float((found.image - encoded.image).abs().mean()) * 255 > 10


@pytest.mark.parametrize("exponents", [(1.0, 1.0), (1.0, 2.2)])
def test_a_sample_s_image_is_the_mixture_of_its_layers(
    exponents: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the composition loss would punish the true alpha."""
    for name in ("NOISY", "COMPRESSED"):
        monkeypatch.setattr(augmentation, name, 0.0)
    for sample in _both(photometric=True, exponents=exponents):
        mixed = sample.alpha * sample.foreground + (1 - sample.alpha) * sample.background
        torch.testing.assert_close(mixed, sample.image, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exponents": (2.2, 1.0), "photometric": True}, "the smaller one comes first"),
        ({"exponents": (1.0, 2.2)}, "photometric=true"),
        ({"exponents": (1.0, 2.2), "photometric": True, "kind": "comp1k"}, "not for an annotation list"),
    ],
)
def test_exponents_that_would_have_no_effect_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_noise_has_its_strength_and_repeats() -> None:
    images = torch.full((2, 3, 64, 64), 120.0)
    first, again = (on_device.noisy(images, torch.tensor([4.0, 0.0]), [1, 2]) for _ in range(2))
    assert torch.equal(first, again)
    assert first[0].std().item() == pytest.approx(4, rel=0.05)
    assert torch.equal(first[1], images[1])


@pytest.mark.parametrize("sigma", [0.7, 2.0, 5.3, 8.0])
def test_defocus_is_opencvs(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)
    # In floating point: its 8-bit version rounds the kernel, by up to two gray levels at large σ.
    side = round(6 * sigma + 1) | 1
    expected = cv2.GaussianBlur(image.astype(np.float32), (side, side), sigma)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = on_device.defocused(planes, torch.tensor([sigma]))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 0.51


def test_trimaps_are_opencvs_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    soft = cv2.GaussianBlur(draw.integers(0, 256, (90, 80), dtype=np.uint8), (0, 0), 6).astype(np.float64)
    alpha = np.clip((soft - soft.mean()) * 60 + 128, 0, 255).astype(np.uint8)
    largest = 17
    for erode, dilate in ((1, 1), (2, 3), (6, 1), (17, 16), (9, 12)):
        elements = np.zeros((2, largest, largest), np.uint8)
        for element, side in zip(elements, (erode, dilate), strict=True):
            corner = largest // 2 - side // 2
            element[corner : corner + side, corner : corner + side] = trimaps.ellipse(side)
        found = random_trimaps(torch.from_numpy(alpha)[None], torch.from_numpy(elements)[None])[0].numpy()
        assert np.array_equal(found, trimaps.from_alpha(alpha, erode=erode, dilate=dilate))


def test_merged_images_from_files_cannot_be_composed() -> None:
    with pytest.raises(ValueError, match="online"):
        DataConfig(kind="comp1k", compose="device")
