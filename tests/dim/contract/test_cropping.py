"""Margins that are dropped on the way: known values, and sizes that fit at every unpooling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dim.contract import STRIDE, NetworkConfig, exact_context
from dim.contract.cropping import (
    ENDLESS,
    IMAGE_CROP,
    LEAST_STEP,
    NO_MARGINS,
    REFINER_CROP,
    Crop,
    Margins,
    crop_names,
    crops,
    features_crop,
    margin_step,
    output_margins,
    switches_crop,
)
from dim.contract.layers import (
    DECODER_RADIUS,
    LEVELS,
    kept_margins,
    layer_work,
    multiply_adds_per_pixel,
    network_context,
    propagation_context,
    refined_margin,
    refiner_reach,
)

EMBEDDED = NetworkConfig(stage=3, width=0.25, cue_radii=(4, 16), propagation_steps=(4, 3, 2))
NETWORKS = (NetworkConfig(stage=1), NetworkConfig(stage=3), EMBEDDED)
SIDES = st.integers(0, 40).map(lambda steps: steps * LEAST_STEP)


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
@given(top=SIDES, bottom=SIDES)
def test_features_and_switches_fit_at_every_level(config: NetworkConfig, top: int, bottom: int) -> None:
    found = crops(config, Margins(top, 0, bottom, 0))
    assert set(found) == set(crop_names(config))
    core = STRIDE + -(top + bottom) % STRIDE
    side = top + core + bottom
    arriving = side >> LEVELS
    for level in range(LEVELS, 0, -1):
        features, switches = found[features_crop(level)], found[switches_crop(level)]
        kept = arriving - features.top - features.bottom
        assert kept == (side >> level) - switches.top - switches.bottom
        arriving = 2 * kept
    image = found[IMAGE_CROP]
    assert arriving == side - image.top - image.bottom
    if REFINER_CROP in found:
        arriving -= found[REFINER_CROP].top + found[REFINER_CROP].bottom
    margins = output_margins(config, Margins(top, 0, bottom, 0))
    assert arriving == margins.top + core + margins.bottom


@pytest.mark.parametrize("config", NETWORKS, ids=["stage 1", "stage 3", "embedded"])
@given(margin=SIDES)
def test_each_level_keeps_what_the_next_one_reads(config: NetworkConfig, margin: int) -> None:
    """Also where a core begins within a value of a level."""
    found = crops(config, Margins(margin, 0, 0, 0))
    # The first pixel that the decoder's last two convolutions read, and then the first value of each level.
    first = margin - refiner_reach(config) - 2 * DECODER_RADIUS
    for level in range(1, LEVELS + 1):
        first //= 2
        assert 0 <= found[switches_crop(level)].top <= max(first, 0)
        first -= DECODER_RADIUS


def test_margins_never_cut_a_cell() -> None:
    assert [margin_step(config) for config in NETWORKS] == [8, 8, 8]
    assert margin_step(NetworkConfig(stage=3, cue_radii=(64,))) == 16


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
