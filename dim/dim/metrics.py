"""Errors of a predicted alpha against the truth, on the published scales.

All functions take uint8 H, W arrays: predicted alpha, true alpha, trimap. The prediction must already agree
with the trimap's known pixels. The unknown region is where the trimap is exactly 128. Scores of a data set
are unweighted means over its images. 0 is perfect for all four.

Definitions: Rhemann et al., "A perceptually motivated online benchmark for image matting", CVPR 2009, as
MMEditing 0.x implements them, because the published tables come from it. That generation holds alphas as
float32 in CONN and gradient magnitudes as float32 in GRAD; the sums here are float64.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from dim.arrays import Bool, Float32, Float64, UInt8
from dim.errors import InputError
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN

Box = tuple[slice, slice]
Pixel = tuple[int, int]

GRADIENT_SIGMA = 1.4
"""Standard deviation of GRAD's Gaussian derivative, pixels."""

CONNECTIVITY_STEPS = 10
"""CONN thresholds both alphas at 0.1, 0.2 … 1."""

CONNECTIVITY_TOLERANCE = 0.15
"""CONN forgives an alpha that exceeds its connected level by less than this."""


class Metrics(NamedTuple):
    """The four published errors of one image."""

    sad: float
    mse: float
    grad: float
    conn: float


def sad(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Return the sum of absolute differences over all pixels, alpha in 0-1, divided by 1000."""
    _check(alpha, truth, trimap)
    return _sad(alpha, truth)


def mse(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Return the sum of squared differences over all pixels, alpha in 0-1, over the number of unknown pixels.

    It is 0 where no pixel is unknown.
    """
    _check(alpha, truth, trimap)
    return _mse(alpha, truth, trimap == UNKNOWN)


def grad(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Return the sum of squared differences of gradient magnitudes over unknown pixels, divided by 1000.

    Each alpha is first stretched so that its own image spans 0 to 1 (a constant image becomes 0), then
    filtered with first-order Gaussian derivatives, sigma 1.4 px, 9×9; the image's edge is replicated.
    """
    _check(alpha, truth, trimap)
    return _grad(alpha, truth, trimap == UNKNOWN)


def conn(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Return the sum of absolute differences of connectivity over unknown pixels, divided by 1000.

    At each threshold t of 0.1, 0.2 … 1, Ω is the largest 4-connected component of the pixels where both
    alphas reach t (the first in reading order if several are equally large). A pixel's level l is the
    last threshold before it is missing from Ω for the first time (0 if it is missing at 0.1, 1 if never).
    With d = alpha − l, an alpha's connectivity is 1 − d where d ≥ 0.15, else 1.
    """
    _check(alpha, truth, trimap)
    return _conn(alpha, truth, trimap == UNKNOWN)


def all_metrics(alpha: UInt8, truth: UInt8, trimap: UInt8) -> Metrics:
    """Compute all four errors; the numbers of the single functions, with one validation of the arrays."""
    _check(alpha, truth, trimap)
    unknown = trimap == UNKNOWN
    return Metrics(
        sad=_sad(alpha, truth),
        mse=_mse(alpha, truth, unknown),
        grad=_grad(alpha, truth, unknown),
        conn=_conn(alpha, truth, unknown),
    )


def _check(alpha: UInt8, truth: UInt8, trimap: UInt8) -> None:
    for name, array in (("alpha", alpha), ("truth", truth), ("trimap", trimap)):
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape != trimap.shape or array.size == 0:
            raise InputError(
                f"cannot score: {name} does not fit",
                got=f"{array.dtype} {array.shape}",
                expected=f"uint8 with the trimap's shape {trimap.shape}, at least one pixel",
            )
    known = (trimap == BACKGROUND) | (trimap == FOREGROUND)
    if ((alpha != trimap) & known).any():
        raise InputError(
            "cannot score a prediction that contradicts its trimap",
            expected="0 where the trimap is 0 and 255 where it is 255",
            fix="alpha[trimap == 0] = 0; alpha[trimap == 255] = 255",
        )


def _sad(alpha: UInt8, truth: UInt8) -> float:
    # For uint8 OpenCV adds integers, so that the norms are exact whatever the size.
    return cv2.norm(alpha, truth, cv2.NORM_L1) / 255 / 1000


def _mse(alpha: UInt8, truth: UInt8, unknown: Bool) -> float:
    pixels = int(np.count_nonzero(unknown))
    return cv2.norm(alpha, truth, cv2.NORM_L2SQR) / 255**2 / pixels if pixels else 0.0


def _grad(alpha: UInt8, truth: UInt8, unknown: Bool) -> float:
    if not unknown.any():
        return 0.0
    # With the filter's reach around it, every unknown pixel sees what it sees in the whole image. What the
    # filter makes of the crop's edge is wrong only in the margin, which is not unknown.
    box = _box(unknown, margin=len(_gaussian_filters()[0]) // 2)
    difference = _gradient_magnitude(alpha, box) - _gradient_magnitude(truth, box)
    return _sum(difference * difference, unknown[box]) / 1000


def _gradient_magnitude(alpha: UInt8, box: Box) -> Float32:
    """Return in the box the magnitude of the gradient of the alpha, stretched over its whole image to 0-1."""
    smooth, derive = _gaussian_filters()
    part = alpha[box]
    along_x = cv2.sepFilter2D(part, cv2.CV_64F, derive, smooth, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.sepFilter2D(part, cv2.CV_64F, smooth, derive, borderType=cv2.BORDER_REPLICATE)
    # The filters ignore the stretch's offset (their sum is 0) and are linear: its factor can come last.
    span = int(alpha.max()) - int(alpha.min())
    factor = 1 / span if span else 0.0
    return (cv2.magnitude(along_x, along_y) * factor).astype(np.float32)


@cache
def _gaussian_filters() -> tuple[Float64, Float64]:
    """Return smoothing and derivative vector, 9 each; their outer product, of L2 norm 1, is GRAD's filter.

    The reach is where the normal density G falls to a hundredth; the derivative is −x·G/σ².
    """
    sigma = GRADIENT_SIGMA
    reach = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    derive = -x * smooth / sigma**2
    return smooth / np.linalg.norm(smooth), derive / np.linalg.norm(derive)


def _conn(alpha: UInt8, truth: UInt8, unknown: Bool) -> float:
    if not unknown.any():
        return 0.0
    box = _box(unknown)
    # The table's row (the level) and column (the alpha) as one index; 16 bits hold 11 × 256.
    row = _connected_steps(alpha, truth)[box] * np.uint16(256)
    table = _connectivity_table().ravel()
    difference = table.take(row + alpha[box]) - table.take(row + truth[box])
    return _sum(np.abs(difference), unknown[box]) / 1000


def _connected_steps(alpha: UInt8, truth: UInt8) -> UInt8:
    """Return for each pixel at how many thresholds in a row, from the first, it is in Ω: uint8 H, W, 0-10."""
    both = np.minimum(alpha, truth, order="C")  # OpenCV fills C-contiguous arrays only
    steps = np.zeros(both.shape, np.uint8)
    reached = [value for value in _threshold_values() if value <= both.max()]
    if not reached:
        return steps
    # Only pixels that reach the first threshold can be in any Ω: a box around them loses nothing and keeps
    # the components' order. The unknown region's box would not do, because components continue outside of it.
    box = _box(both >= reached[0])
    both, inside = both[box], steps[box]
    connected = np.ones(both.shape, np.bool_)
    core = _first_pixel(_largest_component(both >= reached[-1]))
    for value in reached:
        connected &= _omega(both >= value, core)
        if not connected.any():
            break
        inside += connected
    return steps


def _omega(mask: Bool, core: Pixel) -> Bool:
    """Find the largest 4-connected component, given a pixel of the mask that is probably in it."""
    # Filling one component is several times faster than finding all of them, and if it holds more than half
    # of the mask, then no other is as large.
    area, image, _, _ = cv2.floodFill(mask.astype(np.uint8), None, core, 2, flags=4)
    return image == 2 if 2 * area > np.count_nonzero(mask) else _largest_component(mask)


def _largest_component(mask: Bool) -> Bool:
    """Find the largest 4-connected component, the first in reading order if several are equally large."""
    # OpenCV numbers components in reading order, from 1. Counting labels takes less than half of the time
    # of connectedComponentsWithStats, which also finds boxes and centres.
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    areas = np.bincount(labels.ravel(), minlength=2)[1:]
    largest: Bool = labels == 1 + areas.argmax()
    return largest


@cache
def _thresholds() -> Float32:
    """Return 0, 0.1 … 1 in float32: the reference compares float32 alphas, so that 153 / 255 reaches 0.6."""
    return (np.arange(CONNECTIVITY_STEPS + 1) * 0.1).astype(np.float32)


@cache
def _unit_levels() -> Float32:
    """Return the 256 levels of alpha in 0-1, float32."""
    return np.arange(256, dtype=np.float32) / np.float32(255)


@cache
def _threshold_values() -> list[int]:
    """Return the smallest uint8 alpha that reaches each threshold from 0.1 on."""
    return [int(value) for value in np.searchsorted(_unit_levels(), _thresholds()[1:])]


@cache
def _connectivity_table() -> Float32:
    """Return float32 11, 256: the connectivity of a uint8 alpha (column) whose level is a threshold (row)."""
    excess = _unit_levels()[None] - _thresholds()[:, None]
    return 1 - excess * (excess >= np.float32(CONNECTIVITY_TOLERANCE))


def _box(mask: Bool, margin: int = 0) -> Box:
    """Return rows and columns of the smallest box around the true pixels, widened within the image."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (
        slice(max(y - margin, 0), y + height + margin),
        slice(max(x - margin, 0), x + width + margin),
    )


def _first_pixel(mask: Bool) -> Pixel:
    """Return x, y of the first true pixel in reading order."""
    y, x = np.unravel_index(mask.argmax(), mask.shape)
    return int(x), int(y)


def _sum(values: Float32, where: Bool) -> float:
    return float((values * where).sum(dtype=np.float64))
