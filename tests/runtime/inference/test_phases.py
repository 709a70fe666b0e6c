"""Network windows first, propagation afterwards: the alpha of the whole image, in bounded memory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from dim.arrays import UInt8
from dim.contract.cropping import Margins
from dim_runtime import Matting
from dim_runtime.backends.base import Estimate, inside
from dim_runtime.backends.open import default_model, open_backend
from dim_runtime.images.samples import lemur
from dim_runtime.inference.estimates import EstimateStore
from dim_runtime.planning.geometry import Rectangle
from dim_runtime.planning.planner import BLOCK_BYTES

Engine = Literal["onnxruntime", "openvino"]
TILE = 448


@pytest.fixture(scope="module")
def pair() -> tuple[UInt8, UInt8]:
    """Return a part of the shipped photograph that needs several windows of both phases."""
    image, trimap = lemur()
    return np.ascontiguousarray(image[:610, :500]), np.ascontiguousarray(trimap[:610, :500])


def opened(engine: Engine, **options: Any) -> Matting:
    pytest.importorskip(engine)
    return Matting(backend=engine, threads=1, **options)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_two_phases_give_the_alpha_of_the_whole_image(engine: Engine, pair: tuple[UInt8, UInt8]) -> None:
    with opened(engine, tile=TILE) as tiled, opened(engine, tile=1536) as at_once:
        plan = tiled.plan(pair[1])
        assert plan.exact
        assert plan.context == 192
        assert len(plan.windows) > 1
        assert plan.propagation
        calls: list[tuple[int, int]] = []
        out = np.empty(pair[1].shape, np.float64)
        tiled.into(*pair, out, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(done, plan.steps) for done in range(plan.steps + 1)]
        np.testing.assert_allclose(out, at_once(*pair), rtol=0, atol=1e-3)
        assert np.abs(out - at_once(*pair)).mean() < 1e-6
        # Streams compute the same, and so do windows whose context is less than exact, nearly.
        assert [np.array_equal(alpha, out.astype(np.float32)) for alpha in tiled.map([pair, pair])] == [
            True
        ] * 2


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_estimate_of_unknown_padding_is_computed(engine: Engine) -> None:
    """The last blocks hold no unknown pixel of the image, but copies of some in the padding."""
    image = np.ascontiguousarray(lemur()[0][:104, :670])
    trimap = np.full(image.shape[:2], 128, np.uint8)
    trimap[96:], trimap[:, 640:] = 255, 0
    with opened(engine, tile=448) as matting:
        assert matting.plan(trimap).propagation
        found = matting(image, trimap)
    padding = [(0, 128 - 104), (0, 672 - 670)]
    padded = np.pad(image, [*padding, (0, 0)], "reflect"), np.pad(trimap, padding, "reflect")
    with closing(open_backend(default_model(), backend=engine, threads=1)) as backend:
        whole = backend.run(padded[0][None], padded[1][None])[0, :104, :670]
    # Without that estimate 0.02. OpenVINO rounds differently in windows of other shapes.
    np.testing.assert_allclose(found, whole, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_a_smaller_context_is_close(pair: tuple[UInt8, UInt8]) -> None:
    with opened("onnxruntime", tile=320, context=64) as fast, opened("onnxruntime") as exact:
        plan = fast.plan(pair[1])
        assert not plan.exact
        assert plan.propagation
        assert np.abs(fast(*pair) - exact(*pair)).mean() < 2e-3


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_window_returns_what_lies_beyond_its_margins_too(engine: Engine) -> None:
    """The part that is blended is what the graph computes around the core."""
    pytest.importorskip(engine)
    image, _ = lemur()
    window = np.ascontiguousarray(image[None, :160, :192]), np.full((1, 160, 192), 128, np.uint8)
    margins, beyond = Margins(64, 32, 32, 64), Margins(8, 8, 0, 4)
    with closing(open_backend(default_model(), backend=engine, threads=1)) as backend:
        core = backend.run_core(*window, margins)
        more = backend.run_core(*window, margins, beyond)
    assert more.alpha.shape == (1, 160 - 64 - 32 + 8, 192 - 32 - 64 + 8 + 4)
    for inner, outer in zip(core, more, strict=True):
        assert inner is not None
        assert outer is not None
        np.testing.assert_array_equal(inside(outer, beyond), inner)


def test_a_store_takes_parts_that_end_between_blocks(pair: tuple[UInt8, UInt8]) -> None:
    with opened("onnxruntime", tile=TILE) as matting:
        plan = matting.plan(pair[1])
    store = EstimateStore(replace(plan, unknown_blocks=np.ones_like(plan.unknown_blocks)))
    values = np.random.default_rng(0).random((2, 50, 41), np.float32)
    store.add(Rectangle(20, 44, 50, 41), Estimate(*values))
    for found, plane in zip(store.read(Rectangle(0, 32, 96, 64)), values, strict=True):
        assert found is not None
        expected = np.zeros((96, 64), np.float32)
        expected[20:70, 12:53] = plane
        np.testing.assert_array_equal(found[0], expected)


def test_the_plan_counts_what_is_held_between_the_phases(pair: tuple[UInt8, UInt8]) -> None:
    with opened("onnxruntime", tile=TILE) as matting:
        plan = matting.plan(pair[1])
    store = EstimateStore(plan)
    assert plan.unknown_blocks is not None
    assert store.nbytes == BLOCK_BYTES * np.count_nonzero(plan.unknown_blocks)
    assert store.nbytes < plan.peak_bytes


def test_a_store_returns_what_was_added_and_zero_elsewhere(pair: tuple[UInt8, UInt8]) -> None:
    with opened("onnxruntime", tile=TILE) as matting:
        plan = matting.plan(pair[1])
    blocks = np.zeros_like(plan.unknown_blocks)
    blocks[1, 2] = blocks[2, 2] = True
    store = EstimateStore(replace(plan, unknown_blocks=blocks))
    values = np.random.default_rng(0).random((2, 96, 64), np.float32)
    part = Rectangle(32, 64, 96, 64)
    half = np.full((96, 64), 0.5, np.float32)
    for _ in range(2):
        store.add(part, Estimate(*values), half)
    for found, plane in zip(store.read(part), values, strict=True):
        assert found is not None
        np.testing.assert_allclose(found[0, :64, :32], plane[:64, :32], rtol=1e-6)
        assert not found[0, 64:].any()
        assert not found[0, :, 32:].any()
