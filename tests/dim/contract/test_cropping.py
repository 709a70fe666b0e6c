"""Margins that are dropped on the way: known values, and sizes that fit at every unpooling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dim.contract import STRIDE, NetworkConfig, exact_context
from dim.contract.cropping import (
    ENDLESS,
    IMAGE_CROP,
    NO_MARGINS,
    REFINER_CROP,
    Crop,
    Margins,
    crop_names,
    crops,
    features_crop,
    output_margins,
    switches_crop,
)
from dim.contract.layers import (
    LEVELS,
    kept_margins,
    layer_work,
    multiply_adds_per_pixel,
    network_context,
    propagation_context,
    refined_margin,
)

EMBEDDED = NetworkConfig(stage=3, width=0.25, cue_radii=(4, 16), propagation_steps=(4, 3, 2))
NETWORKS = (NetworkConfig(stage=1), NetworkConfig(stage=3), EMBEDDED)
SIDES = st.integers(0, 10).map(lambda blocks: blocks * STRIDE)


def test_kept_margins_are_known() -> None:
    # Stage 1: the last two convolutions see 4 pixels, and each level's one 2 more of half the side.
    assert kept_margins(NetworkConfig(stage=1)) == (2, 2, 2, 2, 2)
    assert kept_margins(NetworkConfig(stage=3)) == (4, 3, 3, 3, 3)
    # 36 pixels for the refiner with its cues, rounded up to cells of 8.
    assert kept_margins(EMBEDDED) == (20, 10, 6, 4, 3)


def test_the_refiner_computes_less_than_its_cues_read() -> None:
    assert [refined_margin(config) for config in NETWORKS] == [4, 8, 8]
    assert [REFINER_CROP in crop_names(config) for config in NETWORKS] == [False, False, True]


def test_contexts_of_the_two_phases() -> None:
    assert [network_context(config) for config in NETWORKS] == [160, 192, 192]
    assert [propagation_context(config) for config in NETWORKS] == [0, 0, 128]
    assert [exact_context(config) for config in NETWORKS] == [160, 192, 320]


def test_without_margins_nothing_is_dropped() -> None:
    for crop in crops(EMBEDDED, NO_MARGINS).values():
        assert (crop.starts, crop.ends) == ((0, 0), (ENDLESS, ENDLESS))
    assert Crop(1, 2, 3, 4).starts == (1, 2)
    assert Crop(1, 2, 3, 4).ends == (-3, -4)


@pytest.mark.parametrize("config", NETWORKS, ids=["stage 1", "stage 3", "embedded"])
@given(margin=SIDES)
def test_features_and_switches_fit_at_every_level(config: NetworkConfig, margin: int) -> None:
    found = crops(config, Margins(margin, margin, margin, margin))
    assert set(found) == set(crop_names(config))
    side = margin + STRIDE
    arriving = side >> LEVELS
    for level in range(LEVELS, 0, -1):
        kept = arriving - found[features_crop(level)].top
        assert kept == (side >> level) - found[switches_crop(level)].top
        # What the core itself needs is never dropped.
        assert kept >= STRIDE >> level
        arriving = 2 * kept
    assert arriving == side - found[IMAGE_CROP].top
    if REFINER_CROP in found:
        arriving -= found[REFINER_CROP].top
    assert arriving - STRIDE == output_margins(config, Margins(margin, 0, 0, 0)).top


@given(sides=st.tuples(SIDES, SIDES, SIDES, SIDES))
def test_sides_are_independent(sides: tuple[int, int, int, int]) -> None:
    found = crops(EMBEDDED, Margins(*sides))
    for place, side in enumerate(sides):
        alone = crops(EMBEDDED, Margins(side, side, side, side))
        assert all(found[name][place] == alone[name][place] for name in found)


@pytest.mark.parametrize("config", NETWORKS, ids=["stage 1", "stage 3", "embedded"])
def test_work_adds_up_and_needs_fewer_pixels_with_each_level(config: NetworkConfig) -> None:
    encoder, *decoder = layer_work(config)
    assert encoder.margin is None
    margins = [layer.margin or 0 for layer in decoder]
    assert margins == sorted(margins, reverse=True)
    assert margins[4] == 2 * kept_margins(config)[0]
    assert margins[-1] == refined_margin(config)
    total = encoder.multiply_adds + sum(layer.multiply_adds for layer in decoder)
    assert round(total) == multiply_adds_per_pixel(config)
    # The encoder's share of the published network: 306 944 of 666 752 multiply-adds.
    if config == NetworkConfig(stage=3):
        assert (encoder.multiply_adds, total) == (306_944, 666_752)
