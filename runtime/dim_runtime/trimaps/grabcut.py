"""GrabCut, several times: find an object on a small copy of a photograph, from marks or a network's mask.

GrabCut: Rother, Kolmogorov and Blake, SIGGRAPH 2004, as OpenCV has it. Each run has its own start and colour
space. With strokes of both kinds a run starts from the strokes that are nearest in position and colour
together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from dim.arrays import Array, Bool, Float32, UInt8
from dim.errors import InputError

WORKING_SIDE = 1024
"""Longest side of the copy that GrabCut works on, pixels: a few seconds on one core. Gaps between leaves or
strands are lost on smaller copies."""
ITERATIONS = 3
BOX_ITERATIONS = 6
"""A box alone shows less of the colours than strokes do, so the colour models need longer to settle."""
SPECK_SHARE = 1e-4
"""Smallest share of the object's area that a part of it has which no stroke touches: gaps between leaves are
larger."""
NEAREST_SIDE = 256
"""Longest side of the copy whose pixels look for their nearest strokes, pixels."""
SAMPLES = 1500
"""Most pixels of each kind of stroke that are compared."""
NEIGHBOURS = 3
"""Nearest stroke pixels whose mean distance counts, so that one stray pixel decides nothing."""
LIGHTNESS_WEIGHT = 0.5
"""Weight of lightness beside a* and b*: shadows must not separate an object from itself."""
LEAST_SURE = 25
"""Level of a network's mask, of 255, above which GrabCut starts with the object. Networks are unsure of parts
of large objects: half of 255 would leave petals and threads out."""

SURE = 250
"""Level of a network's mask, of 255, from which it is sure of the object. Gaps between locks have 240."""
FILLED_SHARE = 0.95
"""Share of a hole of which a network must be sure to fill it."""


class Run(NamedTuple):
    """The settings of one run of GrabCut.

    Attributes:
        position_weight: distance along the image's longer side, in the units of CIELAB colours, where the
            nearest stroke is looked for. A smaller weight lets colour decide alone.
        lab: cut CIELAB in place of RGB; its lightness separates dark colours.
        inner: share of a box's width and height that a run with a box alone starts from.
    """

    position_weight: float
    lab: bool
    inner: float


RUNS = (Run(position_weight=30.0, lab=False, inner=0.8), Run(position_weight=60.0, lab=True, inner=1.0))
"""Two runs, because each costs a second or two; a third and a fourth change the mean SAD by 2 %."""


class Marks(NamedTuple):
    """Marks on the small copy; each bool H, W."""

    foreground: Bool
    background: Bool
    unknown: Bool


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return width and height of the small copy of an image of this size."""
    scale = min(1.0, WORKING_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def segmented(small: UInt8, marks: Marks, mask: UInt8 | None, *, boxed: bool) -> list[Bool]:
    """Find the object in each run; runs that find nothing are left out.

    Args:
        small: uint8 H, W, 3, RGB, of :func:`working_size`.
        marks: what is certainly object and background.
        mask: of a network, uint8 H, W; None starts from the marks.
        boxed: the marked background is the outside of a box.

    Returns:
        bool H, W of each run.

    Raises:
        InputError: the object's colours are those of the background, or there is no room for both.
    """
    if mask is None:
        _require_room(marks, boxed=boxed)
    start = None if mask is None else _started(mask, marks)
    features = _features(small)
    found = [_cut(small, features, marks, run, start, boxed=boxed) for run in RUNS]
    if mask is not None:
        found = [each | _sure_holes(each, mask, marks) for each in found]
    found = [each for each in found if each.any() and not each.all()]
    if not found:
        more = "mark more of the foreground and of the background"
        raise InputError(
            "cannot find the object",
            why="its colours are those of the background",
            fix=f"draw a tighter box, or {more}" if boxed else more,
        )
    return found


def _started(mask: UInt8, marks: Marks) -> Bool:
    """Return bool H, W: the object as a network sees it, without what marks exclude."""
    start = np.asarray(mask > LEAST_SURE) & ~marks.background
    if not start.any() or start.all():
        raise InputError(
            "cannot find the object",
            got=f"a mask with {'nothing but the object' if start.any() else 'no object'}",
            expected="a mask of the object and of what is around it",
            fix="another mask model, or strokes or a box in its place",
        )
    return start


def _sure_holes(found: Bool, mask: UInt8, marks: Marks) -> Bool:
    """Return bool H, W: the holes of the object in which a network sees the object, such as eyes."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((~found).astype(np.uint8), connectivity=4)
    sure = np.bincount(labels[mask >= SURE], minlength=count) / np.maximum(1, boxes[:, cv2.CC_STAT_AREA])
    is_hole = sure >= FILLED_SHARE
    # The object itself is no hole, nor is the background around it.
    is_hole[0] = False
    for outside in (labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[marks.background]):
        is_hole[outside] = False
    return np.asarray(is_hole[labels])


def _require_room(marks: Marks, *, boxed: bool) -> None:
    """Raise InputError unless the small copy has places for both the object and the background."""
    if marks.background.all() and boxed:
        raise InputError(
            "cannot find the object",
            got="a box that is too small for this photograph",
            expected=f"at least a few pixels when its longer side is {WORKING_SIDE} px",
        )
    if marks.background.all() or (marks.foreground | ~marks.background).all():
        raise InputError(
            "cannot find the object",
            got="strokes over foreground and background that cover the same places",
            expected=f"strokes that are apart when the photograph's longer side is {WORKING_SIDE} px",
        )


def _cut(
    small: UInt8, features: list[Float32], marks: Marks, run: Run, start: Bool | None, *, boxed: bool
) -> Bool:
    """Return bool H, W: where one run of GrabCut finds the object."""
    foreground, background, _ = marks
    known = start is not None or bool(foreground.any())
    if start is None:
        start = _start(features, marks, run, boxed=boxed)
    mask = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    mask[background] = cv2.GC_BGD
    mask[foreground] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    # The colour models start from random seeds: fix them, so that the same strokes give the same trimap.
    cv2.setRNGSeed(0)
    colours = cv2.cvtColor(small, cv2.COLOR_RGB2LAB if run.lab else cv2.COLOR_RGB2BGR)
    iterations = ITERATIONS if known else BOX_ITERATIONS
    # The rectangle is not used in this mode.
    cv2.grabCut(colours, mask, (0, 0, 1, 1), *models, iterations, cv2.GC_INIT_WITH_MASK)
    found = _without_specks(np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)), foreground)
    # Holes are specks of the background.
    return ~_without_specks(~found, background)


def _start(features: list[Float32], marks: Marks, run: Run, *, boxed: bool) -> Bool:
    """Return bool H, W: the pixels that a run begins with as the object."""
    if not boxed:
        # Begin with the nearest strokes: the colour models start from more than the strokes alone.
        return _nearer(features, marks.foreground, marks.background, run.position_weight)
    inside = ~marks.background
    if marks.foreground.any():
        return inside
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    start = np.zeros_like(inside)
    start[_inner(rows, run.inner), _inner(columns, run.inner)] = True
    return start & inside


def _inner(places: Array, share: float) -> slice:
    """Return the middle share of a range of rows or columns."""
    margin = round(len(places) * (1 - share) / 2)
    return slice(int(places[0]) + margin, int(places[-1]) + 1 - margin)


def _nearer(features: list[Float32], foreground: Bool, background: Bool, position_weight: float) -> Bool:
    """Return bool H, W: which pixels are nearer to foreground than to background, in position and colour."""
    height, width = foreground.shape
    scale = min(1.0, NEAREST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    *colours, rows, columns = features
    features = [*colours, rows * position_weight, columns * position_weight]
    points = _points(cv2.resize(plane, size, interpolation=cv2.INTER_AREA).ravel() for plane in features)
    to_foreground, to_background = (
        _mean_distance(points, _sampled(_points(plane[marked] for plane in features)))
        for marked in (foreground, background)
    )
    share = to_background / (to_foreground + to_background + np.float32(1e-6))
    large = cv2.resize(share.reshape(size[::-1]), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.5)


def _features(small: UInt8) -> list[Float32]:
    """Return lightness, a*, b*, y and x, each float32 H, W; positions are shares of the longer side."""
    colours = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    # A little blur: noise must not decide which stroke is nearest.
    lightness, a, b = cv2.split(cv2.GaussianBlur(colours, (0, 0), 1.0))
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]].astype(np.float32) / max(small.shape)
    return [np.asarray(plane, np.float32) for plane in (lightness * LIGHTNESS_WEIGHT, a, b, rows, columns)]


def _points(columns: Iterable[Array]) -> Float32:
    return np.stack(list(columns), axis=-1).astype(np.float32, copy=False)


def _sampled(points: Float32) -> Float32:
    """Return at most SAMPLES of the points, evenly chosen."""
    chosen: Float32 = points[np.linspace(0, len(points) - 1, min(len(points), SAMPLES)).astype(int)]
    return chosen


def _mean_distance(points: Float32, samples: Float32) -> Float32:
    """Return the mean distance of each point to its nearest samples."""
    count = min(NEIGHBOURS, len(samples))
    found = []
    # In parts, because all distances at once would take hundreds of megabytes.
    for part in np.array_split(points, max(1, len(points) // 2048)):
        squares = (part**2).sum(1)[:, None] - 2 * part @ samples.T + (samples**2).sum(1)
        nearest = np.partition(squares, count - 1, axis=1)[:, :count]
        found.append(np.sqrt(np.maximum(nearest, 0)).mean(axis=1))
    return np.asarray(np.concatenate(found), np.float32)


def _without_specks(region: Bool, marked: Bool) -> Bool:
    """Remove connected parts that are small beside the whole and that no stroke touches."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    keep = statistics[:, cv2.CC_STAT_AREA] >= SPECK_SHARE * np.count_nonzero(region)
    keep[np.unique(labels[marked])] = True
    keep[0] = False
    return np.asarray(keep[labels]) if count > 1 else region
