"""Plans: geometry in pixels, limits on tile and memory, and the errors that name what would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dim.arrays import Floating, UInt8
from dim.contract import STRIDE, ArtefactMetadata, NetworkConfig
from dim.contract.cropping import output_margin
from dim.contract.layers import layer_work
from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.errors import MemoryLimitError, TileError
from dim_runtime.memory import RESERVE_BYTES
from dim_runtime.planning.geometry import Plan, Rectangle, round_up
from dim_runtime.planning.planner import AUTO_TILES, CHEAP_BYTES, RAMP_SHARE, Planner, PlanOptions
from dim_runtime.planning.survey import survey

Metadata = Callable[..., ArtefactMetadata]


class Planned(Backend):
    """Is planned for, never run."""

    def __init__(self, metadata: ArtefactMetadata) -> None:
        self._metadata = metadata

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        raise AssertionError("planning runs nothing")


@pytest.fixture
def backend(metadata: Metadata) -> Planned:
    return Planned(metadata())


def full(height: int, width: int) -> UInt8:
    return np.full((height, width), 128, np.uint8)


def plan_of(trimap: Any, backend: Backend, options: PlanOptions, *, held_bytes: int = 0) -> Plan:
    return Planner(survey(trimap), backend, options, held_bytes=held_bytes).plan()


def check_geometry(plan: Plan, trimap: UInt8, *, step: int = STRIDE) -> None:
    """Check that cores cover what is unknown, in steps of pixels, and have the context of whole blocks."""
    covered = np.zeros((plan.padded_height, plan.padded_width), np.int64)
    for window in plan.windows:
        core = window.core
        assert all(v % STRIDE == 0 for v in (window.y, window.x, window.height, window.width))
        assert all(v % step == 0 for v in (core.y, core.x, core.height, core.width))
        assert 0 < window.height <= plan.tile
        assert 0 < window.width <= plan.tile
        assert window.y == max(core.y // STRIDE * STRIDE - plan.context, 0)
        assert window.x == max(core.x // STRIDE * STRIDE - plan.context, 0)
        assert window.bottom == min(round_up(core.bottom) + plan.context, plan.padded_height)
        assert window.right == min(round_up(core.right) + plan.context, plan.padded_width)
        covered[core.y : core.bottom, core.x : core.right] += 1
    assert covered.max(initial=0) <= 1
    assert (covered[: plan.height, : plan.width][(trimap > 10) & (trimap < 245)] == 1).all()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_cover_what_is_unknown_with_context_or_the_border(metadata: Metadata, data: Any) -> None:
    height, width = data.draw(st.integers(1, 1500)), data.draw(st.integers(1, 1500))
    context = data.draw(st.integers(0, 6)) * STRIDE
    tile = 2 * context + data.draw(st.integers(1, 20)) * STRIDE
    trimap = np.zeros((height, width), np.uint8)
    for _ in range(data.draw(st.integers(0, 5))):
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        trimap[y : y + data.draw(st.integers(1, 400)), x : x + data.draw(st.integers(1, 400))] = 128
    plan = plan_of(trimap, Planned(metadata()), PlanOptions(tile=tile, context=context))
    check_geometry(plan, trimap)
    assert plan.unknown_pixels == np.count_nonzero(trimap)


def test_nothing_unknown_plans_nothing(backend: Planned) -> None:
    plan = plan_of(np.zeros((5000, 70), np.uint8), backend, PlanOptions())
    assert plan.windows == ()
    assert plan.cost == 0


def test_a_small_image_is_one_window(backend: Planned) -> None:
    plan = plan_of(full(17, 31), backend, PlanOptions(tile=32))
    assert [(w.height, w.width) for w in plan.windows] == [(32, 32)]
    assert plan.cost == 1


def test_cost_is_window_area_over_padded_area(backend: Planned) -> None:
    trimap = np.zeros((1000, 2000), np.uint8)
    trimap[500, 40] = 128
    plan = plan_of(trimap, backend, PlanOptions())
    assert plan.cost == pytest.approx(416 * (64 + 192) / (1024 * 2016))


def test_context_says_whether_the_result_is_exact(backend: Planned) -> None:
    trimap = full(64, 64)
    assert plan_of(trimap, backend, PlanOptions()).exact
    assert plan_of(trimap, backend, PlanOptions(context=224)).exact
    assert not plan_of(trimap, backend, PlanOptions(context=160)).exact


def test_a_tile_too_small_for_the_context_names_the_smallest(backend: Planned) -> None:
    with pytest.raises(TileError, match="416") as caught:
        plan_of(full(600, 600), backend, PlanOptions(tile=384))
    assert caught.value.minimum == 416
    plan_of(full(600, 600), backend, PlanOptions(tile=416))


def test_a_tile_that_holds_the_image_needs_no_context(backend: Planned) -> None:
    assert len(plan_of(full(380, 100), backend, PlanOptions(tile=384)).windows) == 1


def test_the_smallest_tile_is_never_larger_than_the_image(backend: Planned) -> None:
    with pytest.raises(TileError) as caught:
        plan_of(full(400, 100), backend, PlanOptions(tile=64))
    assert caught.value.minimum == 416
    with pytest.raises(TileError) as caught:
        plan_of(full(300, 100), backend, PlanOptions(tile=64))
    assert caught.value.minimum == 320


@pytest.mark.parametrize(
    "options",
    [{"tile": 100}, {"tile": 0}, {"context": 20}, {"context": -32}, {"context": "some"}, {"memory_limit": 0}],
)
def test_impossible_options_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PlanOptions(**options)


def test_the_peak_holds_what_is_held_and_the_largest_window(backend: Planned) -> None:
    none = plan_of(np.zeros((2000, 2000), np.uint8), backend, PlanOptions(), held_bytes=10**9)
    large = plan_of(full(2000, 2000), backend, PlanOptions(), held_bytes=10**9)
    assert none.peak_bytes >= 10**9
    assert large.peak_bytes > none.peak_bytes + backend.window_bytes(1000, 1000)


def test_a_memory_limit_lowers_the_tile_and_the_plan_says_so(backend: Planned) -> None:
    free = plan_of(full(2000, 2000), backend, PlanOptions(tile=1536))
    limit = free.peak_bytes // 2
    plan = plan_of(full(2000, 2000), backend, PlanOptions(tile=1536, memory_limit=limit))
    assert plan.peak_bytes <= limit
    assert plan.tile < 1536
    assert plan.note is not None
    assert "1536" in plan.note
    check_geometry(plan, full(2000, 2000))


def test_a_memory_limit_that_is_large_enough_changes_nothing(backend: Planned) -> None:
    free = plan_of(full(2000, 2000), backend, PlanOptions())
    assert plan_of(full(2000, 2000), backend, PlanOptions(memory_limit=free.peak_bytes)) == free


def test_a_memory_limit_that_cannot_be_kept_states_one_that_can(backend: Planned) -> None:
    trimap = full(800, 900)
    with pytest.raises(MemoryLimitError, match="at least") as caught:
        plan_of(trimap, backend, PlanOptions(memory_limit=10**6), held_bytes=10**8)
    minimum = caught.value.minimum
    plan = plan_of(trimap, backend, PlanOptions(memory_limit=minimum), held_bytes=10**8)
    assert plan.peak_bytes <= minimum
    # The next attempt may hold more, within the reserve.
    assert (
        plan_of(trimap, backend, PlanOptions(memory_limit=minimum), held_bytes=10**8 + RESERVE_BYTES).tile
        == 2 * 192 + STRIDE
    )
    least = minimum - RESERVE_BYTES - 4 * backend.metadata.parameters
    assert plan_of(trimap, backend, PlanOptions(memory_limit=least), held_bytes=10**8).peak_bytes == least
    with pytest.raises(MemoryLimitError):
        plan_of(trimap, backend, PlanOptions(memory_limit=least - 1), held_bytes=10**8)


def test_the_error_states_what_more_memory_buys(backend: Planned) -> None:
    with pytest.raises(MemoryLimitError, match=r"at least (?s:.*): \d+ windows, .*; or \d+MB: 1 window,"):
        plan_of(full(1500, 1500), backend, PlanOptions(memory_limit=10**6))


def test_a_frozen_shape_gives_every_window_that_shape(metadata: Metadata) -> None:
    backend = Planned(metadata(static_shape=(1, 512, 640)))
    trimap = np.zeros((1000, 100), np.uint8)
    trimap[[3, 999], 50] = 128
    plan = plan_of(trimap, backend, PlanOptions())
    assert (plan.padded_height, plan.padded_width) == (1024, 640)
    assert {(w.height, w.width) for w in plan.windows} == {(512, 640)}
    for window in plan.windows:
        assert 0 <= window.y <= window.core.y
        assert window.core.bottom <= window.bottom <= 1024
        assert window.core.y - window.y >= 192 or window.y == 0
        assert window.bottom - window.core.bottom >= 192 or window.bottom == 1024


def test_a_frozen_shape_too_small_for_the_context_is_an_error(metadata: Metadata) -> None:
    with pytest.raises(TileError, match="frozen"):
        plan_of(full(600, 600), Planned(metadata(static_shape=(1, 320, 320))), PlanOptions())


def test_a_frozen_shape_cannot_be_lowered_by_a_memory_limit(metadata: Metadata) -> None:
    with pytest.raises(MemoryLimitError):
        plan_of(
            full(600, 600),
            Planned(metadata(static_shape=(1, 512, 512))),
            PlanOptions(memory_limit=10**6),
        )


class Cropping(Planned):
    """Drops margins in the decoder."""

    @property
    def crops(self) -> bool:
        return True


def two_blocks() -> UInt8:
    trimap = np.zeros((3000, 4000), np.uint8)
    trimap[700:900, 500:3500] = trimap[2000:2600, 800:1000] = 128
    return trimap


def test_auto_weighs_work_and_memory_of_its_tiles(backend: Planned) -> None:
    trimap = two_blocks()
    chosen = plan_of(trimap, backend, PlanOptions(memory_limit=10**11))
    check_geometry(chosen, trimap)
    assert chosen.tile in AUTO_TILES
    others = [plan_of(trimap, backend, PlanOptions(tile=tile)) for tile in AUTO_TILES]
    assert chosen == min(others, key=lambda plan: plan.cost * (plan.peak_bytes + CHEAP_BYTES))
    assert chosen.reason is not None
    assert "the memory limit" in chosen.reason


def test_auto_lowers_the_tile_where_memory_requires_it(backend: Planned) -> None:
    trimap = two_blocks()
    ample = plan_of(trimap, backend, PlanOptions(memory_limit=10**11))
    plan = plan_of(trimap, backend, PlanOptions(memory_limit=ample.peak_bytes // 3))
    check_geometry(plan, trimap)
    assert plan.peak_bytes <= ample.peak_bytes // 3
    assert plan.tile < min(AUTO_TILES)


def test_dropped_margins_are_counted_by_layer(metadata: Metadata) -> None:
    """One block in the middle: each layer computes the block and its own margin."""
    trimap = np.zeros((2048, 2048), np.uint8)
    trimap[1024:1056, 1024:1056] = 128
    backend = Cropping(metadata())
    plan = plan_of(trimap, backend, PlanOptions(tile=1536))
    layers = layer_work(backend.metadata.network)
    sides = [32 + 2 * (192 if layer.margin is None else layer.margin) for layer in layers]
    work = sum(layer.multiply_adds * side**2 for layer, side in zip(layers, sides, strict=True))
    assert plan.cost == pytest.approx(work / sum(layer.multiply_adds for layer in layers) / 2048**2)
    assert plan.cost < plan_of(trimap, Planned(metadata()), PlanOptions(tile=1536)).cost


def test_blended_windows_keep_what_is_computed_anyway(metadata: Metadata) -> None:
    trimap = np.zeros((2048, 2048), np.uint8)
    trimap[1000:1100, 200:2000] = 128
    backend = Cropping(metadata())
    plan = plan_of(trimap, backend, PlanOptions(tile=640, context=64))
    check_geometry(plan, trimap, step=8)
    assert len(plan.windows) > 1
    ramp = round(RAMP_SHARE * output_margin(backend.metadata.network))
    assert 0 < ramp < output_margin(backend.metadata.network)
    for window in plan.windows:
        assert window.covered == window.core
        assert window.kept == window.core.grown(ramp, window)
        assert window.beyond == tuple(min(margin, ramp) for margin in window.margins)


def test_cores_of_windows_that_drop_margins_end_near_what_is_unknown(metadata: Metadata) -> None:
    trimap = np.zeros((1024, 1100), np.uint8)
    trimap[205:310, 500:519] = 128
    (window,) = plan_of(trimap, Cropping(metadata()), PlanOptions(tile=1024)).windows
    assert window.core == window.covered == Rectangle(200, 496, 112, 24)
    # All other windows have cores of whole blocks: their margins are part of what runs together.
    (window,) = plan_of(trimap, Planned(metadata()), PlanOptions(tile=1024)).windows
    assert window.core == Rectangle(192, 480, 128, 64)


def test_cores_never_cut_a_cell(metadata: Metadata) -> None:
    trimap = np.zeros((1024, 1100), np.uint8)
    trimap[205:310, 500:519] = 128
    network = NetworkConfig(stage=3, cue_radii=(64,))
    wider = metadata().model_copy(update={"network": network})
    (window,) = plan_of(trimap, Cropping(wider), PlanOptions(tile=1024)).windows
    assert window.core == Rectangle(192, 496, 128, 32)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fine_cores_cover_what_is_unknown(metadata: Metadata, data: Any) -> None:
    height, width = data.draw(st.integers(1, 900)), data.draw(st.integers(1, 900))
    trimap = np.zeros((height, width), np.uint8)
    for _ in range(data.draw(st.integers(1, 4))):
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        trimap[y : y + data.draw(st.integers(1, 300)), x : x + data.draw(st.integers(1, 300))] = 128
    plan = plan_of(trimap, Cropping(metadata()), PlanOptions(tile=320, context=64))
    check_geometry(plan, trimap, step=8)
