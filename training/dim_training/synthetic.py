"""Procedural foregrounds and backgrounds, so that training and its tests run without any download.

Each shape draws an alpha on a square canvas, at twice the size so that thin structures are anti-aliased:
hair, strings, leaves, nets, holes, soft edges and translucency are what real mattes are made of.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from dim_training.transforms import Random, UInt8

_SUPERSAMPLING = 2
_SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with."""


def draw_alpha(side: int, rng: Random) -> UInt8:
    """Alpha uint8 side × side of a random shape."""
    shapes: tuple[Callable[[int, Random], UInt8], ...] = (
        _hairy,
        _hairy,
        _strings,
        _leaves,
        _net,
        _blob,
        _veil,
    )
    canvas = shapes[rng.integers(len(shapes))](side * _SUPERSAMPLING, rng)
    alpha = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        alpha = cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.15:
        alpha = cv2.multiply(alpha, smooth_noise(side, rng, cells=4), scale=1 / 255)
    return _as_uint8(alpha)


def draw_colours(side: int, rng: Random) -> UInt8:
    """RGB uint8 side × side: smooth colour fields with grain, as a texture or a background."""
    low = rng.uniform(0, 255, 3)
    high = rng.uniform(0, 255, 3)
    mix = sum(smooth_noise(side, rng, cells=cells).astype(np.float32) / 255 / cells for cells in (2, 5, 17))
    assert isinstance(mix, np.ndarray)
    mix = np.clip(mix / mix.max(), 0, 1)[..., None]
    grain = rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    return _as_uint8(np.clip(low * mix + high * (1 - mix) + grain, 0, 255))


def smooth_noise(side: int, rng: Random, *, cells: int) -> UInt8:
    """Random gray levels on a coarse grid, enlarged smoothly; uint8 side × side."""
    grid = rng.integers(0, 256, (cells + 1, cells + 1)).astype(np.uint8)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _as_uint8(image: npt.NDArray[np.generic]) -> UInt8:
    return image.astype(np.uint8, copy=False)


def _fixed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _outline(side: int, rng: Random, *, radius: float, wobble: float) -> npt.NDArray[np.float64]:
    """Closed curve around the canvas centre with random low harmonics; 96 × 2 points."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    shape = np.ones_like(angles)
    for harmonic in range(1, 7):
        shape += wobble / harmonic * rng.normal() * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
    centre = side * rng.uniform(0.35, 0.65, 2)
    reach = radius * side * np.clip(shape, 0.2, 2)[:, None]
    points: npt.NDArray[np.float64] = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points


def _fill(canvas: UInt8, outline: npt.NDArray[np.float64], value: int = 255) -> None:
    cv2.fillPoly(canvas, [_fixed(outline)], value, cv2.LINE_AA, _SHIFT)


def _strand(canvas: UInt8, path: npt.NDArray[np.float64], width: float, value: int = 255) -> None:
    cv2.polylines(canvas, [_fixed(path)], False, value, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _curve(
    start: npt.NDArray[np.float64], angle: float, length: float, rng: Random
) -> npt.NDArray[np.float64]:
    """A path of 12 points whose direction drifts: gravity, curl and waves."""
    steps = np.arange(12)
    bend = rng.normal(0, 0.12) * steps + rng.normal(0, 0.35) * np.sin(steps * rng.uniform(0.3, 1.5))
    directions = np.stack([np.cos(angle + bend), np.sin(angle + bend)], 1)
    return start + np.cumsum(directions * (length / 12), axis=0)


def _hairy(side: int, rng: Random) -> UInt8:
    """A body with strands of hair or fur standing out of its border, in tufts."""
    canvas = np.zeros((side, side), np.uint8)
    outline = _outline(side, rng, radius=rng.uniform(0.12, 0.3), wobble=rng.uniform(0.05, 0.3))
    _fill(canvas, outline)
    centre = outline.mean(0)
    length = side * np.exp(rng.uniform(np.log(0.02), np.log(0.35)))
    width = np.exp(rng.uniform(np.log(1.0), np.log(5.0)))
    tufts = rng.uniform(0, 2 * np.pi, rng.integers(1, 9))
    spread = rng.uniform(0.1, 1.5)
    for _ in range(int(rng.integers(80, 500))):
        angle = rng.choice(tufts) + rng.normal(0, spread)
        root = outline[int(angle / (2 * np.pi) * 96) % 96]
        root += (centre - root) * rng.uniform(0, 0.2)
        path = _curve(root, angle + rng.normal(0, 0.4), length * rng.uniform(0.3, 1.3), rng)
        _strand(canvas, path, width * rng.uniform(0.4, 1.2), int(rng.choice((255, 255, 170))))
    return canvas


def _strings(side: int, rng: Random) -> UInt8:
    """Threads, ropes or fringes hanging roughly in one direction."""
    canvas = np.zeros((side, side), np.uint8)
    angle = rng.uniform(0, 2 * np.pi)
    width = np.exp(rng.uniform(np.log(1.5), np.log(24)))
    for _ in range(int(rng.integers(6, 60))):
        start = rng.uniform(-0.2, 1.2, 2) * side
        path = _curve(start, angle + rng.normal(0, 0.15), side * rng.uniform(0.4, 1.4), rng)
        _strand(canvas, path, width * rng.uniform(0.5, 1.4))
    return canvas


def _leaves(side: int, rng: Random) -> UInt8:
    """Pointed leaves on stems, with gaps between them."""
    canvas = np.zeros((side, side), np.uint8)
    length = side * rng.uniform(0.06, 0.35)
    slimness = rng.uniform(0.05, 0.35)
    direction, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 3)
    along = np.linspace(0, 1, 14)
    for _ in range(int(rng.integers(10, 90))):
        angle = direction + rng.normal(0, spread)
        spine = _curve(rng.uniform(0.05, 0.95, 2) * side, angle, length * rng.uniform(0.5, 1.3), rng)
        spine = np.stack([np.interp(along, np.linspace(0, 1, 12), spine[:, axis]) for axis in (0, 1)], 1)
        normal = np.gradient(spine, axis=0)[:, ::-1] * (1, -1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        half = (np.sin(np.pi * along**0.8) * length * slimness / 2)[:, None] * normal
        _fill(canvas, np.concatenate([spine + half, (spine - half)[::-1]]))
        if rng.random() < 0.4:
            _strand(canvas, spine - (spine[-1] - spine[0]) * rng.uniform(0, 0.8), rng.uniform(1, 4))
    return canvas


def _net(side: int, rng: Random) -> UInt8:
    """A net, grille or basket: two families of bent parallel lines, inside an outline or everywhere."""
    canvas = np.zeros((side, side), np.uint8)
    gap = np.exp(rng.uniform(np.log(8), np.log(70)))
    width = max(1.0, gap * rng.uniform(0.08, 0.4))
    base = rng.uniform(0, np.pi)
    skew = rng.uniform(0.6, 2.5)
    along = np.linspace(-0.8, 0.8, 12) * side
    wave, phase, frequency = rng.uniform(0, 0.06) * side, rng.uniform(0, 6), rng.uniform(1, 6)
    for angle in (base, base + skew):
        forward, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for offset in np.arange(-0.75 * side, 0.75 * side, gap):
            shift = offset + wave * np.sin(frequency * along / side + phase)
            _strand(canvas, side / 2 + along[:, None] * forward + shift[:, None] * across, width)
    if rng.random() < 0.6:
        mask = np.zeros_like(canvas)
        _fill(mask, _outline(side, rng, radius=0.35, wobble=0.2))
        np.minimum(canvas, mask, out=canvas)
        if rng.random() < 0.5:
            _fill(canvas, _outline(side, rng, radius=0.12, wobble=0.3))
    return canvas


def _blob(side: int, rng: Random) -> UInt8:
    """A solid with a sharp or soft border, perhaps with holes and a thin stem."""
    canvas = np.zeros((side, side), np.uint8)
    _fill(canvas, _outline(side, rng, radius=rng.uniform(0.15, 0.4), wobble=rng.uniform(0, 0.6)))
    for _ in range(int(rng.integers(0, 5))):
        hole = _outline(side, rng, radius=rng.uniform(0.01, 0.08), wobble=0.4)
        _fill(canvas, hole + rng.uniform(-0.25, 0.25, 2) * side, 0)
    for _ in range(int(rng.integers(0, 4))):
        path = _curve(np.full(2, side / 2), rng.uniform(0, 6.3), side * rng.uniform(0.3, 0.7), rng)
        _strand(canvas, path, rng.uniform(2, 24))
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), float(np.exp(rng.uniform(0, np.log(14))))).astype(np.uint8)
    return canvas


def _veil(side: int, rng: Random) -> UInt8:
    """Smoke, cloth or glass: a smooth field of partial opacity inside a soft outline."""
    field = np.zeros((side, side), np.float32)
    for cells in (3, 7, 15, 31):
        field += smooth_noise(side, rng, cells=cells).astype(np.float32) / cells
    field = (field - field.min()) / (field.max() - field.min() + 1e-6)
    field = np.clip((field - rng.uniform(0, 0.4)) * rng.uniform(1, 2.5), 0, 1)
    mask = np.zeros((side, side), np.uint8)
    _fill(mask, _outline(side, rng, radius=0.35, wobble=0.3))
    mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(2, 30))).astype(np.uint8)
    return _as_uint8(field * mask)
