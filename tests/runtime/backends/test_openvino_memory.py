"""The fitted memory of OpenVINO: which parts of a network and which precisions take more."""

from __future__ import annotations

from typing import Any

import pytest

from dim.contract import ArtefactMetadata, NetworkConfig
from dim_runtime.backends.fake import fake_metadata
from dim_runtime.backends.openvino_memory import (
    COMPILED_BYTES,
    KERNEL_CACHE,
    compiled_bytes,
    fixed_bytes,
    free_bytes,
    free_pixels,
    propagation_bytes,
    released_bytes,
)
from dim_runtime.backends.openvino_precision import Arithmetic

FP32, BF16, LOWERED, INT8 = (
    Arithmetic("fp32", lowered=False),
    Arithmetic("bf16", lowered=False),
    Arithmetic("fp32", lowered=True),
    Arithmetic("int8", lowered=False),
)
MEGAPIXEL = 10**6


def network(**changes: Any) -> ArtefactMetadata:
    config = {"stage": 1, "width": 1.0} | changes
    return fake_metadata().model_copy(update={"network": NetworkConfig(**config), "parameters": 1000})


def test_sizes_of_values_and_weights() -> None:
    assert [arithmetic.value_size for arithmetic in (FP32, BF16, LOWERED, INT8)] == [4, 2, 2, 4]
    found = [compiled_bytes(network(), arithmetic) - COMPILED_BYTES for arithmetic in (FP32, BF16, INT8)]
    assert found == [4000, 2000, 1000]


def test_a_compiled_shape_grows_with_pixels_channels_and_refiner() -> None:
    plain = fixed_bytes(network(), FP32, MEGAPIXEL)
    assert plain == round(1.05 * (64 * (2 * 4 + 0.6) + 16) * MEGAPIXEL)
    assert fixed_bytes(network(), FP32, 2 * MEGAPIXEL) == pytest.approx(2 * plain)
    assert fixed_bytes(network(width=0.5), FP32, MEGAPIXEL) < 0.6 * plain
    assert fixed_bytes(network(), LOWERED, MEGAPIXEL) < 0.6 * plain
    assert fixed_bytes(network(stage=3), FP32, MEGAPIXEL) - plain == round(1.05 * 16 * 4 * MEGAPIXEL)


def test_cues_and_propagation_need_room_where_the_network_is_narrow() -> None:
    narrow = {"stage": 3, "width": 0.125}
    plain = fixed_bytes(network(**narrow), FP32, MEGAPIXEL)
    cued = fixed_bytes(network(**narrow, cue_radii=(8,)), FP32, MEGAPIXEL)
    propagated = fixed_bytes(network(**narrow, propagation_steps=(4, 3, 2)), FP32, MEGAPIXEL)
    lowered = fixed_bytes(network(**narrow, propagation_steps=(4, 3, 2)), LOWERED, MEGAPIXEL)
    assert plain < cued < propagated < lowered
    wide = fixed_bytes(network(stage=3), FP32, MEGAPIXEL)
    assert fixed_bytes(network(stage=3, cue_radii=(8,)), FP32, MEGAPIXEL) == wide


def test_a_separate_phase_takes_propagation_out_of_the_network() -> None:
    changes: dict[str, Any] = {"stage": 3, "width": 0.125, "propagation_steps": (4, 3, 2)}
    at_once, apart = network(**changes), network(**changes).model_copy(update={"phases": True})
    plain = network(stage=3, width=0.125)
    assert fixed_bytes(apart, FP32, MEGAPIXEL) == fixed_bytes(plain, FP32, MEGAPIXEL)
    assert free_bytes(apart, FP32, MEGAPIXEL) == free_bytes(plain, FP32, MEGAPIXEL)
    assert free_bytes(apart, FP32, MEGAPIXEL) < free_bytes(at_once, FP32, MEGAPIXEL)
    assert released_bytes(MEGAPIXEL) < propagation_bytes(MEGAPIXEL) == round(1.05 * 434e6)


@pytest.mark.parametrize("arithmetic", [FP32, BF16, LOWERED, INT8])
def test_free_shapes_invert_their_own_bytes(arithmetic: Arithmetic) -> None:
    metadata = network(stage=3, width=0.25, propagation_steps=(4, 3, 2))
    limit = free_bytes(metadata, arithmetic, MEGAPIXEL)
    assert free_pixels(metadata, arithmetic, limit) == pytest.approx(MEGAPIXEL, abs=1)
    assert free_pixels(metadata, arithmetic, KERNEL_CACHE) == 0
    assert free_pixels(metadata, arithmetic, 0) == 0
