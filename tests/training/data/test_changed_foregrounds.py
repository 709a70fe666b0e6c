"""Settings that change a share of the foregrounds: recipes without them keep their samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dim.arrays import UInt8
from dim_training.config import DataConfig
from dim_training.data.dataset import build_scenes
from dim_training.data.transforms import Layers

CHANGES = ("patched", "pierced", "crowded", "softened")


def drawn(**settings: Any) -> list[Layers]:
    """Return the layers of the first samples of a recipe of drawn shapes."""
    config = DataConfig(kind="procedural", size=64, crop_sides=(64,), photometric=True, **settings)
    scenes = build_scenes(config, 0)
    return [scenes.draw(i, np.random.default_rng((0, i))).layers for i in range(8)]


def same(first: list[Layers], second: list[Layers]) -> bool:
    return all(
        np.array_equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def soft_share(alpha: UInt8) -> float:
    return float(((alpha > 5) & (alpha < 250)).mean())


@pytest.mark.parametrize("change", CHANGES)
def test_a_recipe_without_a_change_keeps_its_samples(change: str) -> None:
    plain = drawn()
    assert same(plain, drawn(**{change: 0.0}))
    assert not same(plain, drawn(**{change: 1.0}))


def test_softened_samples_have_softer_borders() -> None:
    plain, softened = (sum(soft_share(each.alpha) for each in drawn(softened=share)) for share in (0.0, 1.0))
    assert softened > plain


@pytest.mark.parametrize("change", CHANGES)
def test_images_of_an_annotation_list_are_not_changed(change: str) -> None:
    with pytest.raises(ValueError, match=f"{change}: images of an annotation list are composed as they are"):
        DataConfig(kind="comp1k", **{change: 0.5})


def test_all_changes_that_an_annotation_list_refuses_are_named_together() -> None:
    with pytest.raises(ValueError, match="patched, softened: images of an annotation list"):
        DataConfig(kind="comp1k", patched=0.5, softened=0.5)
