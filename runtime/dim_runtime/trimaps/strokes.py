"""Trimaps from strokes, a box or a network's mask: runs of GrabCut on a small copy find the object.

GrabCut: Rother, Kolmogorov and Blake, SIGGRAPH 2004, as OpenCV has it. Each run has its own start and colour
space. Pixels on which the runs disagree are unknown, because the network cannot repair a wrong known pixel. A
band along the border is unknown as well. With strokes of both kinds a run starts from the strokes that are
nearest in position and colour together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dim.arrays import Array, Bool, Float32, Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images.files import read_rgba
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN
from dim_runtime.trimaps.bands import chosen_band, distance, shrunk

WORKING_SIDE = 1024
"""Longest side of the copy that GrabCut works on, pixels: a few seconds on one core. Gaps between leaves or
strands are lost on smaller copies."""
ITERATIONS = 3
BOX_ITERATIONS = 6
"""A box alone shows less of the colours than strokes do, so the colour models need longer to settle."""
SPECK_SHARE = 1e-4
"""Smallest share of the object's area that a part of it has which no stroke touches: gaps between leaves are
larger."""
LEAST_SHARE = 0.2
"""Share of a small pixel that strokes must cover to mark it; less where all strokes are thinner."""
NEAREST_SIDE = 256
"""Longest side of the copy whose pixels look for their nearest strokes, pixels."""
SAMPLES = 1500
"""Most pixels of each kind of stroke that are compared."""
NEIGHBOURS = 3
"""Nearest stroke pixels whose mean distance counts, so that one stray pixel decides nothing."""
LIGHTNESS_WEIGHT = 0.5
"""Weight of lightness beside a* and b*: shadows must not separate an object from itself."""
MOST_COLOUR = 64
"""Largest difference of a stroke's channels: lossy files change grays a little."""
LEAST_SURE = 25
"""Level of a network's mask, of 255, above which GrabCut starts with the object. Networks are unsure of parts
of large objects: half of 255 would leave petals and threads out."""
BORDER_SHARE = 0.02
"""Share of a box's side: a box that ends nearer to the image's border reaches it, as its object does."""
EXPORT = "draw on an empty layer above the photograph; export that layer alone as PNG with transparency"
GROWTH = 1.0
"""Farthest that an unknown stroke widens the unknown region, in widths of the band."""
GROWTH_STEPS = 6
"""Number of radii by which unknown strokes grow."""


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


class Box(NamedTuple):
    """A rectangle around the object, in pixels of the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Strokes:
    """Marks of a person.

    Attributes:
        levels: uint8 H, W: 0 background, 128 unknown, 255 foreground; of no meaning where nothing is marked.
        marked: bool H, W.
    """

    levels: UInt8
    marked: Bool

    def at(self, level: int) -> Bool:
        """Return bool H, W: where this level is marked."""
        return np.asarray(self.marked & (self.levels == level))

    @classmethod
    def none(cls, height: int, width: int) -> Strokes:
        """Return strokes that mark nothing."""
        return cls(np.zeros((height, width), np.uint8), np.zeros((height, width), np.bool_))


def propose(
    image: Image,
    strokes: Strokes,
    box: Box | None = None,
    mask: UInt8 | None = None,
    *,
    check: Callable[[], object] | None = None,
) -> UInt8:
    """Make a trimap of strokes, of a box around the object, of a network's mask, or of these together.

    Args:
        image: uint8 or uint16 H, W, 3, RGB.
        strokes: levels that are kept as they are; what is not marked is decided by colour, and unknown where
            the runs of GrabCut disagree. Strokes over the unknown region widen the band where they pass.
        box: everything outside is background.
        mask: of a network, uint8 H, W: above LEAST_SURE GrabCut starts with the object. None
            starts from the strokes, or from the box.
        check: called before each iteration of GrabCut; its error ends the work.

    Returns:
        uint8 H, W: 0 background, 128 unknown, 255 foreground.

    Raises:
        InputError: sizes differ, the box lies outside, or nothing tells the object from the background.
    """
    height, width = image.shape[:2]
    if strokes.levels.shape != (height, width):
        raise InputError(
            "cannot use these scribbles",
            got=f"{strokes.levels.shape[1]}×{strokes.levels.shape[0]} px",
            expected=f"the image's {width}×{height} px",
        )
    outside = _outside(box, height, width)
    foreground, background = strokes.at(FOREGROUND), strokes.at(BACKGROUND) | outside
    if mask is None:
        _require_both(foreground, background, box)
    size = _working_size(height, width)
    small = np.asarray(cv2.resize(eight_bits(image), size, interpolation=cv2.INTER_AREA), np.uint8)
    marks = _Marks(
        _covered(foreground, size), _covered(background, size), _covered(strokes.at(UNKNOWN), size)
    )
    start = None if mask is None else _started(mask, marks, size)
    found = _segmented(small, marks, start, boxed=box is not None, check=check or _nothing)
    # The band's width and the unknown strokes refer to the border of one run.
    object_mask = _binary(found[0])
    band = max(chosen_band(_enlarged(object_mask, image)), -(-2 * max(height, width) // max(size)))
    trimap = _agreed(found, image, band)
    if marks.unknown.any():
        grown = _grown(marks, object_mask, band * max(size) / max(height, width))
        trimap[_enlarged(grown, image) >= 128] = UNKNOWN
    trimap[outside & ~strokes.marked] = BACKGROUND
    trimap[strokes.marked] = strokes.levels[strokes.marked]
    return trimap


def _nothing() -> None:
    """Do nothing: the check of a caller that has none."""


class _Marks(NamedTuple):
    """Marks on the small copy; each bool H, W."""

    foreground: Bool
    background: Bool
    unknown: Bool


def require_inside(box: Box, height: int, width: int) -> None:
    """Raise InputError unless a box has two pixels a side and lies inside an image of this size."""
    inside = box.x >= 0 and box.y >= 0 and box.x + box.width <= width and box.y + box.height <= height
    if not inside or box.width < 2 or box.height < 2:
        raise InputError(
            "cannot use this box",
            got=f"{box.width}×{box.height} px at {box.x}, {box.y}",
            expected=f"at least 2×2 px inside {width}×{height} px",
            fix="x and y of the upper left corner, then width and height",
        )


def _outside(box: Box | None, height: int, width: int) -> Bool:
    outside = np.zeros((height, width), np.bool_)
    if box is None:
        return outside
    require_inside(box, height, width)
    for taken in (_at_border(box, height, width), box):
        outside[:] = True
        outside[taken.y : taken.y + taken.height, taken.x : taken.x + taken.width] = False
        # A box that would become the whole image stays as it was drawn.
        if outside.any():
            break
    return outside


def _at_border(box: Box, height: int, width: int) -> Box:
    """Return the box with the sides that end hardly before the image's border moved to it."""
    left, right = _stretched(box.x, box.width, width)
    top, bottom = _stretched(box.y, box.height, height)
    return Box(left, top, right - left, bottom - top)


def _stretched(start: int, length: int, whole: int) -> tuple[int, int]:
    slack, end = round(BORDER_SHARE * length), start + length
    return 0 if start <= slack else start, whole if end >= whole - slack else end


def _require_both(foreground: Bool, background: Bool, box: Box | None) -> None:
    missing = [
        kind
        for kind, region in (("foreground", foreground), ("background", background))
        if not region.any() and box is None
    ]
    if missing:
        raise InputError(
            "cannot separate the object from the background",
            got=f"no {' and no '.join(missing)} stroke",
            expected="strokes over both the foreground and the background, or a box around the object",
        )
    if not background.any():
        raise InputError(
            "cannot separate the object from the background",
            got="a box as large as the image",
            expected="a box around the object, or strokes over the background as well",
        )


def _working_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, WORKING_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _covered(region: Bool, size: tuple[int, int]) -> Bool:
    share = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    # Dots and thin strokes on a large photograph cover little of any small pixel.
    return np.asarray(share > min(LEAST_SHARE, float(share.max()) / 2))


def _started(mask: UInt8, marks: _Marks, size: tuple[int, int]) -> Bool:
    """Return bool H, W on the small copy: the object as a network sees it, without what marks exclude."""
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    start = np.asarray(small > LEAST_SURE) & ~marks.background
    if not start.any() or start.all():
        raise InputError(
            "cannot find the object",
            got=f"a mask with {'nothing but the object' if start.any() else 'no object in the box'}",
            expected="a mask of the object and of what is around it",
            fix="another mask model, or strokes or a box without one",
        )
    return start


def _segmented(
    small: UInt8, marks: _Marks, start: Bool | None, *, boxed: bool, check: Callable[[], object]
) -> list[Bool]:
    """Return where each run of GrabCut finds the object, bool H, W; without the runs that find nothing."""
    if start is None:
        _require_room(marks, boxed=boxed)
    features = _features(small)
    found = [_cut(small, features, marks, run, start, boxed=boxed, check=check) for run in RUNS]
    found = [each for each in found if each.any() and not each.all()]
    if not found:
        more = "mark more of the foreground and of the background"
        raise InputError(
            "cannot find the object",
            why="its colours are those of the background",
            fix=f"draw a tighter box, or {more}" if boxed else more,
        )
    return found


def _require_room(marks: _Marks, *, boxed: bool) -> None:
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
    small: UInt8,
    features: list[Float32],
    marks: _Marks,
    run: Run,
    start: Bool | None,
    *,
    boxed: bool,
    check: Callable[[], object],
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
    mode = cv2.GC_INIT_WITH_MASK
    for _ in range(iterations):
        # One by one, which computes the same: between two of them the work can end.
        check()
        # The rectangle is not used in these modes.
        cv2.grabCut(colours, mask, (0, 0, 1, 1), *models, 1, mode)
        mode = cv2.GC_EVAL
    found = _without_specks(np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)), foreground)
    # Holes are specks of the background.
    return ~_without_specks(~found, background)


def _start(features: list[Float32], marks: _Marks, run: Run, *, boxed: bool) -> Bool:
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


def _agreed(found: list[Bool], image: Image, band: int) -> UInt8:
    """Return a trimap of the image's size: known where all runs agree, farther than a band from others."""
    surest, widest = (
        _enlarged(_binary(region), image) for region in (np.all(found, axis=0), np.any(found, axis=0))
    )
    trimap = np.full(image.shape[:2], UNKNOWN, np.uint8)
    trimap[shrunk(surest >= 128, band)] = FOREGROUND
    trimap[shrunk(widest < 128, band)] = BACKGROUND
    return trimap


def _enlarged(mask: UInt8, image: Image) -> UInt8:
    large = cv2.resize(mask, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return large.astype(np.uint8, copy=False)


def _binary(region: Bool) -> UInt8:
    return np.where(region, 255, 0).astype(np.uint8)


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


def _grown(marks: _Marks, object_mask: UInt8, band: float) -> UInt8:
    """Return uint8 H, W, 255 where unknown strokes widen the unknown region.

    A stroke beside the band shows that the soft border reaches that far. What lies as near to the stroke as
    the stroke lies to the object's border becomes unknown, up to GROWTH bands away. Foreground and background
    strokes that are nearer have precedence.
    """
    edge = cv2.morphologyEx(object_mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    reach = distance(edge) + band / 2
    grown = np.zeros(object_mask.shape, np.bool_)
    # Discs of the few radii below, in place of a disc of another radius around every pixel.
    for radius in np.linspace(band / 2, GROWTH * band, GROWTH_STEPS):
        grown |= distance(marks.unknown & (reach >= radius)) <= radius
    known = marks.foreground | marks.background
    if known.any():
        grown &= distance(marks.unknown) < distance(known)
    return _binary(grown)


def _without_specks(region: Bool, marked: Bool) -> Bool:
    """Remove connected parts that are small beside the whole and that no stroke touches."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    keep = statistics[:, cv2.CC_STAT_AREA] >= SPECK_SHARE * np.count_nonzero(region)
    keep[np.unique(labels[marked])] = True
    keep[0] = False
    return np.asarray(keep[labels]) if count > 1 else region


def read_strokes(path: Path, *, max_pixels: int) -> Strokes:
    """Read strokes from an image file: white foreground, black background, gray unknown, transparent
    unmarked.

    Raises:
        InputError: not an image, too large, without transparency, or with strokes of other colours.
    """
    pixels = eight_bits(read_rgba(path, noun="scribbles", max_pixels=max_pixels, fix=EXPORT))
    marked = pixels[..., 3] >= 128
    if marked.all():
        raise InputError(
            f"cannot use the scribbles {path}",
            got="no transparent pixel",
            expected="white foreground, black background, gray unknown, transparent where nothing is marked",
            fix=EXPORT,
        )
    darkest, lightest = pixels[..., :3].min(axis=-1), pixels[..., :3].max(axis=-1)
    if (lightest[marked] - darkest[marked] > MOST_COLOUR).any():
        raise InputError(
            f"cannot use the scribbles {path}",
            got="strokes in colours",
            expected="white foreground, black background, gray unknown, transparent where nothing is marked",
            fix="draw in white, black and gray alone",
        )
    levels = np.full(marked.shape, UNKNOWN, np.uint8)
    gray = pixels[..., 1]
    levels[gray >= 192] = FOREGROUND
    levels[gray < 64] = BACKGROUND
    return Strokes(levels, marked)
