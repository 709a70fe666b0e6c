"""Compare two alphas of one image with each other and, if it is known, with the true alpha."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import computed_field

from dim import metrics
from dim import trimap as trimaps
from dim.arrays import Floating, UInt8
from dim.frozen_model import FrozenModel

VISIBLE = 1 / 255
"""One gray level, the smallest step of an 8-bit alpha."""
_GRADED = 0.05
_FEWEST_GRADED = 3000


class Difference(FrozenModel):
    """Differences of two alphas over the unknown pixels.

    They are NaN, written as null in JSON, if either alpha holds a NaN.
    """

    unknown_pixels: int
    share_beyond: float
    """Of the unknown pixels, how many differ by more than 1/255; 0-1."""
    mean_difference: float
    max_difference: float
    sad: float
    """Sum of the absolute differences, divided by 1000."""
    nan_pixels: int
    gain: float | None = None
    """Slope of the second alpha's logits over the reference's, where the reference is between 0.05 and 0.95.
    Rounding and flips scatter around 1; a scaled layer shifts the slope. None below 3000 such pixels."""
    spread: float
    """Standard deviation of the reference's alpha. Near 0, the case cannot distinguish networks."""


class Errors(FrozenModel):
    """The four published errors of one alpha against the truth, over the unknown pixels."""

    sad: float
    mse: float
    grad: float
    conn: float


class AgainstTruth(FrozenModel):
    """Errors of the reference and of the artefact, and how much larger the artefact's are."""

    reference: Errors
    artefact: Errors

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shift(self) -> dict[str, float]:
        """Artefact over reference, minus 1, for each error: 0.05 is five percent worse."""
        before, after = self.reference.model_dump(), self.artefact.model_dump()
        return {name: relative_shift(before[name], after[name]) for name in before}


def compare(reference: Floating, found: Floating, trimap: UInt8) -> Difference:
    """Compare two alphas, floating H, W, over the unknown pixels of the trimap, uint8 H, W."""
    where = trimaps.unknown(trimap)
    expected = reference[where].astype(np.float64)
    difference = np.abs(found[where].astype(np.float64) - expected)
    if not difference.size:
        expected = difference = np.zeros(1)
    nan = int(np.isnan(difference).sum())
    return Difference(
        unknown_pixels=int(where.sum()),
        share_beyond=math.nan if nan else float((difference > VISIBLE).mean()),
        mean_difference=float(difference.mean()),
        max_difference=float(difference.max()),
        sad=float(difference.sum()) / 1000,
        nan_pixels=nan,
        gain=gain(reference[where], found[where]),
        spread=float(expected.std()),
    )


def gain(reference: Floating, found: Floating) -> float | None:
    """Return the slope of a line through 0 from the reference's logits to the found ones.

    The line minimises the sum of absolute distances, not of squares. Rounding that flips alpha moves logits
    far, and more often away from 0 than towards it, which squares would measure as a scale.

    Args:
        reference: floating N, in [0, 1].
        found: floating N, of the same pixels.

    Returns:
        The slope; None where :class:`Difference` has none.
    """
    # 0.5 is the logit 0, which has no slope.
    used = graded(reference) & (reference != 0.5)
    if np.count_nonzero(used) < _FEWEST_GRADED:
        return None
    return _slope(_logits(reference[used]), _logits(found[used]))


def graded(alpha: Floating) -> npt.NDArray[np.bool_]:
    """Return where an alpha is neither clearly background nor clearly foreground: between 0.05 and 0.95."""
    return (alpha > _GRADED) & (alpha < 1 - _GRADED)


def _slope(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Return the median of y / x, weighted by |x|; it minimises the sum of absolute distances."""
    if np.isnan(y).any():
        return math.nan
    ratios = y / x
    order = ratios.argsort()
    cumulative = np.abs(x[order]).cumsum()
    return float(ratios[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def _logits(alpha: Floating) -> npt.NDArray[np.float64]:
    inside = np.clip(alpha.astype(np.float64), 1e-3, 1 - 1e-3)
    odds: npt.NDArray[np.float64] = np.log(inside / (1 - inside))
    return odds


def against_truth(reference: Floating, found: Floating, truth: UInt8, trimap: UInt8) -> AgainstTruth | None:
    """Score both alphas, floating H, W in [0, 1], against the truth, uint8 H, W; None if one holds a NaN.

    Alphas are rounded to 8 bits, as in files. Known pixels of both sides are set from the trimap, so that
    only unknown pixels count.
    """
    if np.isnan(reference).any() or np.isnan(found).any():
        return None
    truth = trimaps.apply_known(truth, trimap)
    return AgainstTruth(reference=_errors(reference, truth, trimap), artefact=_errors(found, truth, trimap))


def relative_shift(before: float, after: float) -> float:
    """Return after / before − 1; 0 if both are 0, NaN if only ``before`` is 0."""
    if before:
        return after / before - 1
    return math.nan if after else 0.0


def _errors(alpha: Floating, truth: UInt8, trimap: UInt8) -> Errors:
    gray = trimaps.apply_known(np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8), trimap)
    return Errors(**metrics.all_metrics(gray, truth, trimap)._asdict())
