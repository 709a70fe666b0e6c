"""Tiled equals whole, bit by bit, with back ends whose arithmetic is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim.contract import ArtefactMetadata
from dim_runtime.inference.tiler import run_plan
from dim_runtime.planning.planner import Options, make_plan

SIZES = [(1, 1), (17, 31), (333, 517), (1500, 1100)]


@pytest.fixture
def tiled(local_filter: Any) -> Callable[..., npt.NDArray[np.float64]]:
    def compute(image: Any, trimap: Any, backend: Any = None, **options: Any) -> npt.NDArray[np.float64]:
        backend = backend or local_filter
        out = np.full(trimap.shape, np.nan)
        run_plan(backend, image, trimap, make_plan(np.asarray(trimap), backend, Options(**options)), out)
        return out

    return compute


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tile", [448, 640, 1024])
def test_tiled_is_the_whole_image(
    size: tuple[int, int], tile: int, tiled: Any, pair: Any, local_filter: Any, whole: Any
) -> None:
    image, trimap = pair(*size)
    np.testing.assert_array_equal(tiled(image, trimap, tile=tile), whole(local_filter, image, trimap))


def test_too_little_context_is_not_the_whole_image(
    tiled: Any, pair: Any, local_filter: Any, whole: Any
) -> None:
    """The fake back end looks far enough to need the context: otherwise the test above would show nothing."""
    image, trimap = pair(900, 900)
    near = tiled(image, trimap, tile=448, context=128)
    assert (near != whole(local_filter, image, trimap)).any()


def test_a_frozen_shape_is_exact_too(tiled: Any, pair: Any, metadata: Any, local_filter: Any) -> None:
    image, trimap = pair(700, 800)
    frozen = type(local_filter)(metadata(static_shape=(1, 512, 480)))
    np.testing.assert_array_equal(tiled(image, trimap, frozen), tiled(image, trimap))
    assert set(frozen.shapes) == {(1, 512, 480)}


@pytest.mark.parametrize("context", [0, 32, 96])
def test_blended_windows_of_a_local_result_are_that_result(
    context: int, tiled: Any, pair: Any, identity: Any, whole: Any
) -> None:
    image, trimap = pair(800, 700)
    blended = tiled(image, trimap, identity, tile=256, context=context)
    np.testing.assert_allclose(blended, whole(identity, image, trimap), atol=1e-6)


def test_known_pixels_do_not_depend_on_the_network(tiled: Any, pair: Any, identity: Any) -> None:
    image, trimap = pair(300, 200)
    alpha = tiled(image, trimap, identity)
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 1).all()


def test_nothing_unknown_never_calls_the_network(tiled: Any, identity: Any, image: Any) -> None:
    trimap = np.zeros((70, 50), np.uint8)
    trimap[:, :20] = 250
    alpha = tiled(image(70, 50), trimap, identity)
    np.testing.assert_array_equal(alpha, trimap == 250)
    assert identity.shapes == []


def test_sixteen_bits_are_rounded_to_eight(tiled: Any, pair: Any, identity: Any, image: Any) -> None:
    _, trimap = pair(90, 70)
    deep = image(90, 70, dtype=np.uint16)
    eight = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(tiled(deep, trimap, identity), tiled(eight, trimap, identity))


def test_memory_mapped_arrays_are_read_and_written(
    tmp_path: Path, pair: Any, identity: Any, whole: Any
) -> None:
    image, trimap = pair(500, 700)
    mapped = np.memmap(tmp_path / "image", np.uint8, "w+", shape=image.shape)
    mapped[:] = image
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=trimap.shape)
    plan = make_plan(trimap, identity, Options(tile=448))
    run_plan(identity, mapped, trimap, plan, out)
    np.testing.assert_array_equal(out, whole(identity, image, trimap).astype(np.float32))


class Sliced:
    """The least that an array library offers: a shape and slices."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        assert all(isinstance(part, slice) for part in (key if isinstance(key, tuple) else (key,)))
        return self._array[key].copy()

    def __setitem__(self, key: Any, value: Any) -> None:
        assert all(isinstance(part, slice) for part in (key if isinstance(key, tuple) else (key,)))
        self._array[key] = value


@pytest.mark.parametrize("context", ["exact", 32])
def test_anything_that_slices_will_do(context: Any, pair: Any, identity: Any, whole: Any) -> None:
    image, trimap = pair(300, 400)
    out = np.full(trimap.shape, np.nan)
    plan = make_plan(trimap, identity, Options(tile=416, context=context))
    run_plan(identity, Sliced(image), Sliced(trimap), plan, Sliced(out))
    np.testing.assert_allclose(out, whole(identity, image, trimap), atol=1e-6)


def test_views_with_any_strides_will_do(tiled: Any, pair: Any, identity: Any) -> None:
    image, trimap = pair(200, 300)
    turned = tiled(np.asfortranarray(image), np.asfortranarray(trimap), identity)
    np.testing.assert_array_equal(turned, tiled(image, trimap, identity))


def test_progress_counts_windows(pair: Any, identity: Any) -> None:
    image, trimap = pair(900, 900)
    plan = make_plan(trimap, identity, Options(tile=448))
    calls: list[tuple[int, int]] = []
    run_plan(identity, image, trimap, plan, np.empty(trimap.shape), progress=lambda *call: calls.append(call))
    assert calls == [(done, len(plan.windows)) for done in range(len(plan.windows) + 1)]


def test_metadata_decides_the_context(metadata: Callable[..., ArtefactMetadata], identity: Any) -> None:
    other = type(identity)(metadata(context=64))
    plan = make_plan(np.full((900, 900), 128, np.uint8), other, Options(tile=192))
    assert plan.context == 64
    assert plan.exact
