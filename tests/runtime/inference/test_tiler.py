"""Tiled equals whole, bit by bit, with back ends whose arithmetic is exact."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim.contract import ArtefactMetadata
from dim_runtime.backends.base import Backend, valid_alpha
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.backends.open import default_model, open_backend
from dim_runtime.errors import BackendError
from dim_runtime.inference import tiler
from dim_runtime.inference.tiler import run_plan
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan
from dim_runtime.planning.planner import Planner, PlanOptions
from dim_runtime.planning.survey import survey


def plan_of(trimap: Any, backend: Backend, options: PlanOptions, *, held_bytes: int = 0) -> Plan:
    return Planner(survey(trimap), backend, options, held_bytes=held_bytes).plan()


SIZES = [(1, 1), (17, 31), (333, 517), (1500, 1100)]


@pytest.fixture
def tiled(local_filter: Any) -> Callable[..., npt.NDArray[np.float64]]:
    def compute(image: Any, trimap: Any, backend: Any = None, **options: Any) -> npt.NDArray[np.float64]:
        backend = backend or local_filter
        out = np.full(trimap.shape, np.nan)
        run_plan(
            backend,
            image,
            trimap,
            plan_of(np.asarray(trimap), backend, PlanOptions(**options)),
            out,
        )
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
    frozen = FakeBackend(metadata(static_shape=(1, 512, 480)), local_filter.alpha)
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
    plan = plan_of(trimap, identity, PlanOptions(tile=448))
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
    plan = plan_of(trimap, identity, PlanOptions(tile=416, context=context))
    run_plan(identity, Sliced(image), Sliced(trimap), plan, Sliced(out))
    np.testing.assert_allclose(out, whole(identity, image, trimap), atol=1e-6)


def test_views_with_any_strides_will_do(tiled: Any, pair: Any, identity: Any) -> None:
    image, trimap = pair(200, 300)
    turned = tiled(np.asfortranarray(image), np.asfortranarray(trimap), identity)
    np.testing.assert_array_equal(turned, tiled(image, trimap, identity))


def test_progress_counts_windows(pair: Any, identity: Any) -> None:
    image, trimap = pair(900, 900)
    plan = plan_of(trimap, identity, PlanOptions(tile=448))
    calls: list[tuple[int, int]] = []
    run_plan(identity, image, trimap, plan, np.empty(trimap.shape), progress=lambda *call: calls.append(call))
    assert calls == [(done, len(plan.windows)) for done in range(len(plan.windows) + 1)]


def test_metadata_decides_the_context(metadata: Callable[..., ArtefactMetadata]) -> None:
    other = FakeBackend(metadata(context=64))
    plan = plan_of(np.full((900, 900), 128, np.uint8), other, PlanOptions(tile=192))
    assert plan.context == 64
    assert plan.exact


def test_a_plan_has_its_expected_time(identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The back end takes a microsecond for each pixel, by its own clock."""
    now = 0.0

    def alpha(image: Any, trimap: Any) -> Any:
        nonlocal now
        now += trimap.size * 1e-6
        return np.zeros(trimap.shape, np.float32)

    identity.alpha = alpha
    monkeypatch.setattr(tiler, "time", SimpleNamespace(perf_counter=lambda: now))
    with Matting.from_backend(identity) as matting:
        plan = matting.plan(np.full((1000, 1500), 128, np.uint8))
        assert plan.seconds == pytest.approx(sum(window.area for window in plan.windows) * 1e-6)
        assert matting.plan(np.zeros((50, 60), np.uint8)).seconds == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda alpha: np.full_like(alpha, np.nan), "nan"),
        (lambda alpha: np.where(np.arange(alpha.size).reshape(alpha.shape) == 7, np.inf, alpha), "inf"),
        (lambda alpha: alpha - 640, "values from -6"),
        (lambda alpha: alpha + 0.01, "values from"),
        (lambda alpha: alpha[0], "float64"),
        (lambda alpha: (255 * alpha).astype(np.uint8), "uint8"),
        (lambda alpha: alpha.tolist(), "list"),
        (lambda alpha: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("way", ["call", "map"])
def test_what_is_no_alpha_is_an_error(identity: Any, pair: Any, wrong: Any, words: str, way: str) -> None:
    right = identity.alpha
    identity.alpha = lambda image, trimap: wrong(np.ones_like(right(image, trimap)))
    matting = Matting.from_backend(identity)
    with pytest.raises(BackendError, match=f"cannot use the alpha(?s:.*){words}"):
        matting(*pair(40, 50)) if way == "call" else list(matting.map([pair(40, 50)]))


def test_rounding_beyond_the_range_is_clipped(identity: Any, pair: Any) -> None:
    image, trimap = pair(40, 50)
    image[...] = 255
    image[:20] = 0
    identity.alpha = lambda image, trimap: image[..., 0] / np.float32(255) * 1.0008 - 4e-4
    alpha = Matting.from_backend(identity)(image, trimap)
    assert set(np.unique(alpha)) == {0.0, 1.0}


@pytest.mark.bench
def test_validating_a_window_takes_a_hundredth_of_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one window of 0.6 megapixels in ONNX Runtime; the least of ten and of three runs."""
    pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (1, 768, 768, 3), np.uint8)
    trimap = np.full((1, 768, 768), 128, np.uint8)
    backend = open_backend(default_model(), threads=2)
    alpha = backend.run(image, trimap)
    window = min(timeit.repeat(lambda: backend.run(image, trimap), number=1, repeat=3))
    validation = min(timeit.repeat(lambda: valid_alpha(alpha, alpha.shape), number=1, repeat=10))
    with capsys.disabled():
        print(f"window {window:.3f} s, validation {validation / window:.3%} of it")
    assert validation < 0.01 * window
