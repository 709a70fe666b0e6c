"""Procedural foregrounds and backgrounds, so that training and its tests run without any download.

Hair, strings, leaves, nets, holes, soft edges and translucency are what real mattes are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Random, UInt8
from dim_training.data.procedural import strands
from dim_training.data.procedural.canvas import (
    CURVE_POINTS,
    OUTLINE_POINTS,
    Canvas,
    Shape,
    curve,
    log_uniform,
    outline,
)

BACK_SHOWN = 0.4
"""Share of nets whose other side shows through, as of a basket."""
FILLED = 0.4
"""Share of nets with things in them."""


def draw_shape(side: int, rng: Random) -> Shape:
    """Draw a random shape, side × side."""
    shapes: tuple[Callable[[int, Random], Canvas], ...] = (
        strands.hair,
        strands.hair,
        strands.fur,
        strands.fur,
        strands.yarn,
        _hairy,
        _hairy,
        _strings,
        _leaves,
        _leaves,
        _net,
        _blob,
        _veil,
    )
    alpha, tint = shapes[rng.integers(len(shapes))](side, rng).finished()
    if rng.random() < 0.35:
        alpha = _as_uint8(cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(0.4, 1.6))))
    if rng.random() < 0.15:
        alpha = _as_uint8(cv2.multiply(alpha, smooth_noise(side, rng, cells=4), scale=1 / 255))
    return Shape(alpha, tint)


def draw_colours(side: int, rng: Random) -> UInt8:
    """Draw RGB uint8 side × side: smooth colour fields with grain, as a texture or a background."""
    low = rng.uniform(0, 255, 3)
    high = rng.uniform(0, 255, 3)
    mix = sum(smooth_noise(side, rng, cells=cells).astype(np.float32) / 255 / cells for cells in (2, 5, 17))
    assert isinstance(mix, np.ndarray)
    mix = np.clip(mix / mix.max(), 0, 1)[..., None]
    grain = rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    return _as_uint8(np.clip(low * mix + high * (1 - mix) + grain, 0, 255))


def smooth_noise(side: int, rng: Random, *, cells: int) -> UInt8:
    """Draw random gray levels on a coarse grid, enlarged smoothly; uint8 side × side."""
    grid = rng.integers(0, 256, (cells + 1, cells + 1)).astype(np.uint8)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _as_uint8(image: npt.NDArray[np.generic]) -> UInt8:
    return image.astype(np.uint8, copy=False)


def _hairy(side: int, rng: Random) -> Canvas:
    """Draw a body with strands of hair or fur standing out of its border, in tufts."""
    canvas = Canvas(side)
    border = outline(canvas.side, rng, radius=rng.uniform(0.12, 0.3), wobble=rng.uniform(0.05, 0.3))
    canvas.fill(border)
    centre = border.mean(0)
    length = canvas.side * log_uniform(0.02, 0.35, rng)
    width = log_uniform(1.0, 5.0, rng)
    tufts = rng.uniform(0, 2 * np.pi, rng.integers(1, 9))
    spread = rng.uniform(0.1, 1.5)
    for _ in range(int(rng.integers(80, 500))):
        angle = rng.choice(tufts) + rng.normal(0, spread)
        root = border[int(angle / (2 * np.pi) * OUTLINE_POINTS) % OUTLINE_POINTS]
        root += (centre - root) * rng.uniform(0, 0.2)
        path = curve(root, angle + rng.normal(0, 0.4), length * rng.uniform(0.3, 1.3), rng)
        canvas.strands(path[None], width * rng.uniform(0.4, 1.2), int(rng.choice((255, 255, 170))))
    return canvas


def _strings(side: int, rng: Random) -> Canvas:
    """Draw threads, ropes or fringes hanging roughly in one direction."""
    canvas = Canvas(side)
    angle = rng.uniform(0, 2 * np.pi)
    width = log_uniform(1.5, 24, rng)
    for _ in range(int(rng.integers(6, 60))):
        start = rng.uniform(-0.2, 1.2, 2) * canvas.side
        path = curve(start, angle + rng.normal(0, 0.15), canvas.side * rng.uniform(0.4, 1.4), rng)
        canvas.strands(path[None], width * rng.uniform(0.5, 1.4))
    return canvas


def _leaves(side: int, rng: Random) -> Canvas:
    """Draw pointed leaves on stems, few or many, with gaps between them; every leaf has its own shade."""
    canvas = Canvas(side)
    length = canvas.side * rng.uniform(0.06, 0.35)
    slimness = rng.uniform(0.05, 0.35)
    direction, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 3)
    along = np.linspace(0, 1, 14)
    shades = rng.uniform(0, 50)
    for _ in range(round(log_uniform(10, 200, rng))):
        angle = direction + rng.normal(0, spread)
        spine = curve(rng.uniform(0.05, 0.95, 2) * canvas.side, angle, length * rng.uniform(0.5, 1.3), rng)
        spine = np.stack(
            [np.interp(along, np.linspace(0, 1, CURVE_POINTS), spine[:, axis]) for axis in (0, 1)], 1
        )
        normal = np.gradient(spine, axis=0)[:, ::-1] * (1, -1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        half = (np.sin(np.pi * along**0.8) * length * slimness / 2)[:, None] * normal
        tint = rng.normal(0, shades) + rng.normal(0, shades / 3, 3)
        canvas.fill(np.concatenate([spine + half, (spine - half)[::-1]]), tint=tint)
        if rng.random() < 0.4:
            stem = spine - (spine[-1] - spine[0]) * rng.uniform(0, 0.8)
            canvas.strands(stem[None], rng.uniform(1, 4), tint=tint)
    return canvas


class _Weave(NamedTuple):
    """The lines of a net, in pixels of the enlarged canvas and radians.

    Attributes:
        gap, width: distance of neighbouring lines, and their thickness.
        angles: directions of the two families.
        wave, phase, frequency: lines are moved by wave · sin(frequency · place / side + phase).
    """

    gap: float
    width: float
    angles: tuple[float, float]
    wave: float
    phase: float
    frequency: float


def _net(side: int, rng: Random) -> Canvas:
    """Draw a net, grille or basket, inside an outline or everywhere, perhaps with its back and contents."""
    canvas = Canvas(side)
    size = canvas.side
    gap, base = log_uniform(24, 90, rng), rng.uniform(0, np.pi)
    weave = _Weave(
        gap,
        max(1.0, gap * rng.uniform(0.08, 0.4)),
        (base, base + rng.uniform(0.6, 2.5)),
        rng.uniform(0, 0.06) * size,
        rng.uniform(0, 6),
        rng.uniform(1, 6),
    )
    shine = rng.uniform(0, 60)
    if rng.random() < BACK_SHOWN:
        # The other side of a basket: further away, and darker.
        further = weave._replace(gap=gap * rng.uniform(0.7, 1), width=weave.width * rng.uniform(0.6, 1))
        _weave(canvas, further._replace(phase=rng.uniform(0, 6)), shade=-rng.uniform(0, 80), shine=shine / 2)
    if rng.random() < FILLED:
        _contents(canvas, rng)
    _weave(canvas, weave, shade=0.0, shine=shine)
    if rng.random() < 0.6:
        mask = Canvas(side)
        mask.fill(outline(size, rng, radius=0.35, wobble=0.2))
        np.minimum(canvas.alpha, mask.alpha, out=canvas.alpha)
        if rng.random() < 0.5:
            canvas.fill(outline(size, rng, radius=0.12, wobble=0.3))
    return canvas


def _weave(canvas: Canvas, weave: _Weave, *, shade: float, shine: float) -> None:
    """Draw two families of bent parallel lines, round ones: dark at their borders, light along the middle.

    Args:
        shade: addition to their colours.
        shine: half the difference between the middle and the borders.
    """
    size = canvas.side
    along = np.linspace(-0.8, 0.8, 12) * size
    for angle in weave.angles:
        forward, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        offsets = np.arange(-0.75 * size, 0.75 * size, weave.gap)[:, None]
        shifts = offsets + weave.wave * np.sin(weave.frequency * along / size + weave.phase)
        paths = size / 2 + along[:, None] * forward + shifts[..., None] * across
        canvas.strands(paths, weave.width, tint=np.full(3, shade - shine))
        middle = paths + across * weave.width / 6
        canvas.strands(middle, weave.width / 2, tint=np.full(3, shade + shine), visible=False)


def _contents(canvas: Canvas, rng: Random) -> None:
    """Draw pencils, spoons or toys: what stands in a basket, each in its own colour."""
    size = canvas.side
    for _ in range(int(rng.integers(1, 5))):
        tint = rng.normal(0, 60, 3)
        if rng.random() < 0.5:
            canvas.fill(outline(size, rng, radius=rng.uniform(0.05, 0.25), wobble=0.3), tint=tint)
        else:
            start, angle = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0, 2 * np.pi)
            end = start + size * rng.uniform(0.2, 0.8) * np.array([np.cos(angle), np.sin(angle)])
            canvas.strands(np.stack([start, end])[None], log_uniform(12, 100, rng), tint=tint)


def _blob(side: int, rng: Random) -> Canvas:
    """Draw a solid with a sharp or soft border, perhaps with holes and a thin stem."""
    canvas = Canvas(side)
    size = canvas.side
    canvas.fill(outline(size, rng, radius=rng.uniform(0.15, 0.4), wobble=rng.uniform(0, 0.6)))
    for _ in range(int(rng.integers(0, 5))):
        hole = outline(size, rng, radius=rng.uniform(0.01, 0.08), wobble=0.4)
        canvas.fill(hole + rng.uniform(-0.25, 0.25, 2) * size, 0)
    for _ in range(int(rng.integers(0, 4))):
        path = curve(np.full(2, size / 2), rng.uniform(0, 6.3), size * rng.uniform(0.3, 0.7), rng)
        canvas.strands(path[None], rng.uniform(2, 24))
    if rng.random() < 0.5:
        canvas.alpha = _as_uint8(cv2.GaussianBlur(canvas.alpha, (0, 0), log_uniform(1, 14, rng)))
    return canvas


def _veil(side: int, rng: Random) -> Canvas:
    """Draw smoke, cloth or glass: a smooth field of partial opacity inside a soft outline."""
    canvas = Canvas(side)
    size = canvas.side
    field = np.zeros((size, size), np.float32)
    for cells in (3, 7, 15, 31):
        field += smooth_noise(size, rng, cells=cells).astype(np.float32) / cells
    field = (field - field.min()) / (field.max() - field.min() + 1e-6)
    field = np.clip((field - rng.uniform(0, 0.4)) * rng.uniform(1, 2.5), 0, 1)
    canvas.fill(outline(size, rng, radius=0.35, wobble=0.3))
    mask = cv2.GaussianBlur(canvas.alpha, (0, 0), float(rng.uniform(2, 30)))
    canvas.alpha = _as_uint8(field * mask)
    return canvas
