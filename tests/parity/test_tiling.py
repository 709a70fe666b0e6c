"""Tiled equals whole, for every size and tile: the context holds all that a window core can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dim.arrays import Floating, UInt8
from dim_export.graph.torch_backend import TorchBackend
from dim_export.parity.comparison import VISIBLE
from dim_export.parity.reference import whole
from dim_runtime.backends.base import Backend
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.errors import TileError
from dim_runtime.inference.tiler import run_plan
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan
from dim_runtime.planning.planner import Planner, PlanOptions
from dim_runtime.planning.survey import survey

SIZES = [(1, 1), (17, 31), (333, 517), (1500, 1100)]
TILES = [448, 640, 1024]

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
tiles = pytest.mark.parametrize("tile", TILES)


@pytest.fixture(scope="module")
def exact(live_model: Any) -> TorchBackend:
    return TorchBackend(live_model(width=0.0625), dtype=torch.float64)


@pytest.fixture(scope="module")
def engine(live_artefact: Path) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(live_artefact)


def _picture(size: tuple[int, int]) -> tuple[UInt8, UInt8]:
    """Noise, and a trimap that is unknown at the borders, in corners and inside."""
    draw = np.random.default_rng(size[0])
    image = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.sin(y / 37) + np.cos(x / 53) + np.sin((x + y) / 91)
    trimap = np.where(waves > 0, 255, 0).astype(np.uint8)
    # Spots, not bands: at the smallest tile a window's core is 64 px wide, and each window costs as much as
    # a 448 px image.
    for down, right in ((0, 0), (1, 1), (0.5, 0), (0.4, 0.6), (0.8, 0.3)):
        trimap[(y - down * size[0]) ** 2 + (x - right * size[1]) ** 2 < 24**2] = 128
    return image, trimap


def plan_of(trimap: Any, backend: Backend, options: PlanOptions, *, held_bytes: int = 0) -> Plan:
    return Planner(survey(trimap), backend, options, held_bytes=held_bytes).plan()


class _Kept:
    """Whole-image results, kept for the tiles of one size.

    By the back end itself and not by its id, which a later one may get when this one is gone.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[Backend, tuple[int, int]], Floating] = {}

    def of(self, backend: Backend, size: tuple[int, int]) -> Floating:
        key = backend, size
        if key not in self.found:
            image, trimap = _picture(size)
            self.found[key] = whole(backend, image, trimap, plan_of(trimap, backend, PlanOptions()))
        return self.found[key]


@pytest.fixture(scope="module")
def kept() -> _Kept:
    return _Kept()


def _tiled(backend: Backend, size: tuple[int, int], tile: int) -> tuple[Floating, int]:
    image, trimap = _picture(size)
    plan = plan_of(trimap, backend, PlanOptions(tile=tile))
    alpha = np.empty(size)
    run_plan(backend, image, trimap, plan, alpha)
    return alpha, len(plan.windows)


@sizes
@tiles
def test_float64_pytorch(exact: TorchBackend, kept: _Kept, size: tuple[int, int], tile: int) -> None:
    expected = kept.of(exact, size)
    found, windows = _tiled(exact, size, tile)
    assert found.shape == size
    assert windows > 1 or max(size) <= tile
    assert expected.dtype == np.float64
    assert np.abs(found - expected).max() <= 1e-12


@pytest.mark.parametrize(
    "network",
    [
        {"cue_radii": (4, 16)},
        {"cue_radii": (48,)},
        {"stage": 1},
        {"propagation_steps": (1, 2)},
        {"cue_radii": (4,), "propagation_steps": (1, 1, 1)},
        {"propagation_steps": (1, 2), "propagates_light": True},
        {"propagation_steps": (1, 2), "propagates_light": True, "hardens_ends": True},
        {"cue_radii": (4,), "propagation_steps": (1,), "lifts_shadows": True},
        {"cue_radii": (4,), "propagation_steps": (1,), "lifts_shadows": True, "sharpens": True},
    ],
)
def test_other_members_of_the_family(live_model: Any, kept: _Kept, network: dict[str, Any]) -> None:
    """Each with a window's core of a few blocks, and its own context."""
    backend = TorchBackend(live_model(width=0.0625, **network), dtype=torch.float64)
    found, windows = _tiled(backend, (333, 1100), 544)
    assert windows > 1
    assert np.abs(found - kept.of(backend, (333, 1100))).max() <= 1e-12


def test_the_signal_is_alive(exact: TorchBackend, kept: _Kept) -> None:
    """Else the comparison above would hold for any context."""
    size = (333, 517)
    unknown = _picture(size)[1] == 128
    assert kept.of(exact, size)[unknown].std() > 0.05


def test_less_context_is_seen(exact: TorchBackend, kept: _Kept) -> None:
    size = (333, 517)
    image, trimap = _picture(size)
    plan = plan_of(trimap, exact, PlanOptions(tile=256, context=64))
    alpha = np.empty(size)
    run_plan(exact, image, trimap, plan, alpha)
    assert np.abs(alpha - kept.of(exact, size)).max() > 1e-4


@sizes
@tiles
def test_onnxruntime(engine: OnnxRuntimeBackend, kept: _Kept, size: tuple[int, int], tile: int) -> None:
    expected = kept.of(engine, size)
    found, _ = _tiled(engine, size, tile)
    assert (np.abs(found - expected) > VISIBLE).mean() <= 1e-4


@pytest.mark.parametrize("backend", ["exact", "engine"])
def test_a_tile_too_small_names_the_smallest(request: pytest.FixtureRequest, backend: str) -> None:
    image, trimap = _picture((1500, 1100))
    matting = Matting.from_backend(request.getfixturevalue(backend), tile=384)
    with pytest.raises(TileError, match="416") as caught:
        matting(image, trimap)
    assert caught.value.minimum == 416


def test_the_engine_against_float64(engine: OnnxRuntimeBackend, live_checkpoint: Path) -> None:
    from dim import checkpoint

    reference = TorchBackend(checkpoint.load(live_checkpoint), dtype=torch.float64)
    image, trimap = _picture((333, 517))
    plan = plan_of(trimap, reference, PlanOptions())
    expected = whole(reference, image, trimap, plan)
    found = Matting.from_backend(engine)(image, trimap)
    unknown = trimap == 128
    assert (np.abs(found - expected)[unknown] > VISIBLE).mean() <= 0.005
