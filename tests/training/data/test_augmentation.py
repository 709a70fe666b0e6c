"""Tones, defocus, noise and compression."""

from __future__ import annotations

import numpy as np
import pytest

from dim_training.data import augmentation
from dim_training.data.augmentation import Look, Tone
from dim_training.data.transforms import Layers

UNCHANGED = Tone(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1), 1.0)


def _image(height: int = 40, width: int = 50) -> augmentation.UInt8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_tone_that_changes_nothing() -> None:
    assert np.array_equal(augmentation.apply_tone(_image(), UNCHANGED), _image())


def test_saturation_zero_is_gray() -> None:
    found = augmentation.apply_tone(_image(), UNCHANGED._replace(saturation=0.0))
    assert np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(found[..., 0], found[..., 2])


def test_tones_differ_and_keep_the_order_of_values() -> None:
    tones = [augmentation.draw_tone(np.random.default_rng(seed)) for seed in range(9)]
    assert len({tone.saturation for tone in tones}) == 9
    for tone in tones:
        assert (np.diff(tone.table.astype(int), axis=0) >= 0).all()


def test_every_change_happens_sometimes_and_within_its_range() -> None:
    looks = [augmentation.draw_look(np.random.default_rng(seed)) for seed in range(400)]
    for name, share, largest in (("blur", 0.75, 8), ("noise", 0.6, 5), ("jpeg", 0.2, 95)):
        values = np.array([getattr(look, name) for look in looks])
        assert (values > 0).mean() == pytest.approx(share, abs=0.1)
        assert values.max() <= largest


def test_only_the_background_is_out_of_focus() -> None:
    look = Look(UNCHANGED, UNCHANGED, blur=3.0, noise=0, noise_seed=0, jpeg=0)
    found = augmentation.change_layers(Layers(_image(), _image(), _image()[..., 0]), look)
    assert np.array_equal(found.foreground, _image())
    assert found.background.std() < 0.5 * _image().std()


@pytest.mark.parametrize(("noise", "jpeg"), [(5.0, 0), (5.0, 50), (0.0, 50)])
def test_a_photograph_stays_in_range(noise: float, jpeg: int) -> None:
    look = Look(UNCHANGED, UNCHANGED, blur=0, noise=noise, noise_seed=3, jpeg=jpeg)
    image = np.full((32, 32, 3), 250, np.float32)
    image[:8] = 3
    found = augmentation.photograph(image, look)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 255
    assert not np.array_equal(found, image)
    assert np.array_equal(found, augmentation.photograph(image, look))
