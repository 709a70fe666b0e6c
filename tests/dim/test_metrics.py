"""Metrics against the reference implementation's numbers, and against a naive implementation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dim import metrics
from dim.arrays import UInt8
from dim.errors import InputError

from . import naive_metrics

Inputs = tuple[UInt8, UInt8, UInt8]

CASES = ("small", "mid", "perfect", "allunknown_pred0", "nounknown", "gtconst200_predconst100")
NAMES = metrics.Metrics._fields

AROUND_THRESHOLDS = sorted({round(step * 25.5) + offset for step in range(1, 10) for offset in (-1, 0, 1)})


def naive(inputs: Inputs) -> metrics.Metrics:
    return metrics.Metrics(*(getattr(naive_metrics, name)(*inputs) for name in NAMES))


def masked(alpha: UInt8, truth: UInt8, trimap: UInt8) -> Inputs:
    """Return the prediction forced to the trimap; the truth is left alone and may contradict it."""
    return np.where((trimap == 0) | (trimap == 255), trimap, alpha).astype(np.uint8), truth, trimap


@st.composite
def scored_images(draw: st.DrawFn) -> Inputs:
    """Small images whose unknown pixels lie in a rectangle, so that there is something to crop."""
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    palette = draw(st.sampled_from([(0, 255), (0, 152, 153, 255), (0, *AROUND_THRESHOLDS, 255), range(256)]))
    image = arrays.arrays(np.uint8, shape, elements=st.sampled_from(palette), fill=st.sampled_from(palette))
    alpha, truth = draw(image), draw(image)
    trimap = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from((0, 255))))
    rows, columns = (sorted(draw(st.tuples(*[st.integers(0, side)] * 2))) for side in shape)
    window = trimap[slice(*rows), slice(*columns)]
    window[...] = draw(arrays.arrays(np.uint8, window.shape, elements=st.sampled_from((128, 0, 255, 64))))
    if draw(st.booleans()):
        truth = np.where(trimap == 128, truth, trimap).astype(np.uint8)
    return masked(alpha, truth, trimap)


def constant(alpha: int, truth: int, trimap: int) -> Inputs:
    return masked(*(np.full((7, 9), value, np.uint8) for value in (alpha, truth, trimap)))


def equal_components() -> Inputs:
    """Four squares of one area up to 0.7, of which the first in reading order is gone from 0.8 on."""
    alpha = np.zeros((11, 11), np.uint8)
    for y, x, value in ((1, 7, 200), (2, 1, 230), (6, 8, 230), (7, 2, 230)):
        alpha[y : y + 3, x : x + 3] = value
    return alpha, np.full_like(alpha, 255), np.full_like(alpha, 128)


def two_components(width: int) -> Inputs:
    """Return a component of 3 × width that is gone from 0.8 on, then one of 3 × 3 that continues."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:3, :width], alpha[4:7, :3] = 200, 230
    return alpha, np.full_like(alpha, 255), np.full_like(alpha, 128)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_the_reference_s(
    case: str, golden: Callable[[str], dict[str, Any]], golden_info: dict[str, Any]
) -> None:
    data = golden("D_metrics")
    expected = golden_info["D"][case]["v0"]
    inputs = (data[f"{case}__pred"], data[f"{case}__alpha"], data[f"{case}__trimap"])
    assert metrics.sad(*inputs) == pytest.approx(expected["SAD"], rel=1e-9)
    assert metrics.mse(*inputs) == pytest.approx(expected["MSE"], rel=1e-9)
    # The reference also sums in float32, hence the tolerance; alphas as float64 would be off by 1e-3.
    assert metrics.grad(*inputs) == pytest.approx(expected["GRAD"], rel=5e-7)
    assert metrics.conn(*inputs) == pytest.approx(expected["CONN"], rel=5e-7)


def test_the_published_example() -> None:
    truth = np.full((32, 32), 255, np.uint8)
    trimap = np.zeros((32, 32), np.uint8)
    trimap[:16, :16], trimap[16:, 16:] = 128, 255
    alpha = np.where(trimap == 255, 255, 0).astype(np.uint8)
    assert metrics.sad(alpha, truth, trimap) == pytest.approx(0.768)
    assert metrics.mse(alpha, truth, trimap) == pytest.approx(3.0)
    assert metrics.grad(alpha, truth, trimap) == pytest.approx(0.0028887, abs=5e-8)
    assert metrics.conn(alpha, truth, trimap) == pytest.approx(0.256)


@settings(max_examples=200, deadline=None)
@given(scored_images())
@example(constant(255, 255, 128))
@example(constant(153, 153, 128))
@example(constant(25, 200, 128))
@example(constant(0, 90, 0))
@example(constant(0, 90, 255))
@example(equal_components())
@example(two_components(2))
@example(two_components(3))
@example(two_components(4))
def test_fast_is_naive(inputs: Inputs) -> None:
    fast = metrics.all_metrics(*inputs)
    assert fast == pytest.approx(naive(inputs), rel=1e-9, abs=1e-12)
    assert fast == tuple(getattr(metrics, name)(*inputs) for name in NAMES)


def test_of_equal_components_the_first_counts() -> None:
    # In the first square the level is 0.7: 200 / 255 is forgiven, the truth's connectivity is 0.7. Elsewhere
    # the level is 0, the truth's connectivity too.
    first, others, outside = 9 * 0.3, 27 * (1 - 230 / 255), 11 * 11 - 4 * 9
    assert metrics.conn(*equal_components()) == pytest.approx((first + others + outside) / 1000, rel=1e-6)


def test_level_153_reaches_the_threshold_of_six_tenths() -> None:
    # As float64 153 / 255 is below 0.6000000000000001, and the level would be 0.5: then 0.1 is forgiven, but
    # 204 / 255 − 0.5 = 0.3 is not.
    assert metrics.conn(*constant(153, 191, 128)) == 0
    assert metrics.conn(*constant(152, 191, 128)) == pytest.approx(63 * (191 / 255 - 0.5) / 1000, rel=1e-6)


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array.T.copy().T,
        lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
        lambda array: np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3],
    ],
    ids=["transposed", "reversed", "sliced"],
)
def test_arrays_may_be_views(view: Callable[[UInt8], UInt8]) -> None:
    alpha, truth, trimap = hair(60, 80, unknown=0.5)
    expected = metrics.all_metrics(alpha, truth, trimap)
    assert metrics.all_metrics(view(alpha), view(truth), view(trimap)) == pytest.approx(expected, rel=1e-12)


def test_sums_do_not_overflow() -> None:
    white, trimap = np.full((3000, 3000), 255, np.uint8), np.full((3000, 3000), 128, np.uint8)
    assert metrics.sad(white, 0 * white, trimap) == pytest.approx(9000)
    assert metrics.mse(white, 0 * white, trimap) == pytest.approx(1)


@pytest.mark.parametrize("name", [*NAMES, "all_metrics"])
def test_predictions_that_contradict_the_trimap_are_refused(name: str) -> None:
    metric = getattr(metrics, name)
    zero = np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match="contradicts"):
        metric(zero + 1, zero, zero)
    with pytest.raises(InputError, match="contradicts"):
        metric(zero + 254, zero, zero + 255)
    with pytest.raises(InputError, match="does not fit"):
        metric(zero[:2], zero, zero)
    with pytest.raises(InputError, match="does not fit"):
        metric(zero.astype(np.float32), zero, zero)
    with pytest.raises(InputError, match="does not fit"):
        metric(zero[:0], zero[:0], zero[:0])


def hair(height: int, width: int, *, unknown: float) -> Inputs:
    """Return a blob with a ragged border, partly unknown, and a prediction with smooth errors."""
    draw = np.random.default_rng(0)

    def noise(blur: float) -> npt.NDArray[Any]:
        field: npt.NDArray[Any] = cv2.GaussianBlur(draw.standard_normal((height, width)), (0, 0), blur)
        field /= field.std()
        return field

    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(y, x)
    truth = 0.5 + 2.2 * (0.62 - radius - 0.08 * noise(40) - 0.05 * noise(4) - 0.06 * noise(1.2))
    inner, outer = np.quantile(radius, (0.5 - unknown / 2, 0.5 + unknown / 2))
    trimap = np.select([radius < inner, radius > outer], [255, 0], 128).astype(np.uint8)
    alpha = np.clip(truth, 0, 1) + 0.08 * noise(3)
    levels = [np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8) for values in (alpha, truth)]
    return masked(levels[0], np.where(trimap == 128, levels[1], trimap).astype(np.uint8), trimap)


def seconds(work: Callable[[], object]) -> float:
    # The processor's time, so that other programs do not count.
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.bench
@pytest.mark.parametrize("unknown", [0.4, 0.6])
def test_fast_takes_a_third_of_the_naive_time(
    unknown: float, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = hair(1080, 800, unknown=unknown)
    assert metrics.all_metrics(*inputs) == pytest.approx(naive(inputs), rel=1e-9)
    pairs = [
        (seconds(lambda: metrics.all_metrics(*inputs)), seconds(lambda: naive(inputs))) for _ in range(5)
    ]
    fast, slow = (min(times) for times in zip(*pairs, strict=True))
    with capsys.disabled():
        print(f"\nmetrics, 1080×800, {unknown:.0%} unknown: fast / naive = {fast / slow:.2f}")
    assert fast <= slow / 3
