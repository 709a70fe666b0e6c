"""Procedural hair, fur and yarn: hundreds of strands, with gaps between them and separate shades."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dim.arrays import Random
from dim_training.data.procedural.canvas import OUTLINE_POINTS, Canvas, Points, log_uniform, outline

POINTS = 10
"""Points of a strand."""
SHADES = 6
"""Different colours of the strands of one shape: OpenCV draws those of one colour in one call."""

TEXTURE = 500
"""Strands that colour the inside of a furry body."""

Numbers = npt.NDArray[np.float64]


def hair(side: int, rng: Random) -> Canvas:
    """Draw locks of long hair that hang from a body, with gaps between the locks and stray strands."""
    canvas = Canvas(side)
    size = canvas.side
    direction = rng.uniform(0, 2 * np.pi)
    forward = np.array([np.cos(direction), np.sin(direction)])
    across = np.array([-forward[1], forward[0]])
    top = size * rng.uniform(0.3, 0.7, 2) - forward * size * rng.uniform(0, 0.3)
    shades = _shades(rng)
    body = outline(size, rng, radius=rng.uniform(0.12, 0.3), wobble=0.15)
    body += top - body.mean(0)
    canvas.fill(body, tint=shades[0])
    width = log_uniform(1, 4, rng)
    length = size * rng.uniform(0.25, 0.8)
    strays = rng.uniform(0.05, 0.5)
    spread, tightness = size * rng.uniform(0.03, 0.3), size * log_uniform(0.004, 0.05, rng)
    curl = log_uniform(0.01, 0.25, rng)
    for _ in range(int(rng.integers(3, 15))):
        root = top + across * rng.normal(0, spread)
        count = int(rng.integers(15, 110))
        lock = _paths(
            root[None], np.array([direction + rng.normal(0, 0.25)]), np.array([length]), rng, curl=curl
        )
        wander = rng.normal(0, tightness, count) * np.where(rng.random(count) < strays, 4, 1)
        opening = np.linspace(rng.uniform(0.1, 1), rng.uniform(0.3, 1.8), POINTS)
        waves = _paths(
            np.zeros((count, 2)), rng.uniform(0, 6.3, count), wander * rng.uniform(0, 3), rng, curl=3 * curl
        )
        paths = lock + (wander[:, None] * opening)[..., None] * across + waves
        _draw(canvas, paths, width, shades, rng)
    # Translucent strands lie behind the body.
    canvas.fill(body)
    return canvas


def fur(side: int, rng: Random) -> Canvas:
    """Draw a body whose border is short fur, combed and clumped into tips."""
    canvas = Canvas(side)
    size = canvas.side
    border = outline(size, rng, radius=rng.uniform(0.15, 0.35), wobble=rng.uniform(0.05, 0.3))
    shades = _shades(rng)
    canvas.fill(border, tint=shades[0])
    centre = border.mean(0)
    length = size * log_uniform(0.02, 0.16, rng)
    width = log_uniform(1, 5, rng)
    comb, waves, phase = rng.normal(0, 0.5), rng.integers(1, 5), rng.uniform(0, 6.3)

    def angles_at(places: Numbers) -> Numbers:
        around: Numbers = 2 * np.pi * places
        return around + comb + 0.5 * np.sin(waves * around + phase)

    places = rng.uniform(0, 1, TEXTURE)
    roots = centre + (_on(border, places) - centre) * np.sqrt(rng.uniform(0, 1, (TEXTURE, 1)))
    inside = _paths(roots, angles_at(places), np.full(TEXTURE, length), rng, curl=0.05)
    _colour_body(canvas, inside, width, shades)
    tips = int(rng.integers(40, 220))
    strands = int(rng.integers(3, 12))
    places = np.repeat(rng.uniform(0, 1, tips), strands)
    ends = np.repeat(rng.normal(0, 0.35, tips), strands)
    reach = np.repeat(rng.uniform(0.3, 1.3, tips), strands)
    roots = _on(border, places + rng.normal(0, 0.006, places.size))
    roots += (centre - roots) * rng.uniform(0, 0.15, (places.size, 1))
    paths = _paths(
        roots,
        angles_at(places) + ends + rng.normal(0, 0.12, places.size),
        length * reach * rng.uniform(0.6, 1.1, places.size),
        rng,
        curl=0.05,
    )
    _draw(canvas, paths, width, shades, rng)
    # Translucent strands lie behind the body.
    canvas.fill(border)
    return canvas


def yarn(side: int, rng: Random) -> Canvas:
    """Draw tassels, fringes and twigs: a few thick strands of separate colours."""
    canvas = Canvas(side)
    size = canvas.side
    direction = rng.uniform(0, 2 * np.pi)
    across = np.array([-np.sin(direction), np.cos(direction)])
    count = int(rng.integers(5, 45))
    start = size * rng.uniform(0.3, 0.7, 2) - 0.3 * size * np.array([np.cos(direction), np.sin(direction)])
    roots = start + across * rng.normal(0, size * rng.uniform(0.05, 0.25), (count, 1))
    lengths = size * rng.uniform(0.3, 0.8) * rng.uniform(0.6, 1.2, count)
    paths = _paths(roots, direction + rng.normal(0, 0.2, count), lengths, rng, curl=0.06)
    width = log_uniform(4, 40, rng)
    colourful = rng.uniform(5, 80)
    body = outline(size, rng, radius=rng.uniform(0.1, 0.25), wobble=0.2)
    canvas.fill(body - body.mean(0) + start)
    for path in paths:
        canvas.strands(path[None], width * rng.uniform(0.6, 1.3), tint=rng.normal(0, colourful, 3))
    if rng.random() < 0.4:
        fuzz = paths[:, 2:].reshape(-1, 2)
        short = _paths(
            fuzz + rng.normal(0, width / 3, fuzz.shape),
            rng.uniform(0, 6.3, len(fuzz)),
            np.full(len(fuzz), 1.5 * width),
            rng,
            curl=0.2,
        )
        canvas.strands(short, 1.0, 200)
    return canvas


def _colour_body(canvas: Canvas, paths: Points, width: float, shades: Numbers) -> None:
    """Draw strands inside of the body, which is opaque, so that only their colours show."""
    for shade, part in zip(shades, np.array_split(paths, SHADES), strict=True):
        canvas.strands(part, width, tint=shade, visible=False)


def _paths(roots: Points, angles: Numbers, lengths: Numbers, rng: Random, *, curl: float) -> Points:
    """Return n curves of POINTS points from ``roots``; all sway together, and each bends on its own."""
    steps = np.arange(POINTS)
    count = max(len(roots), len(angles))
    sway = rng.normal(0, 0.08) * steps + rng.normal(0, 0.3) * np.sin(steps * rng.uniform(0.2, 1.0))
    own = rng.normal(0, curl, (count, 1)) * steps + rng.normal(0, 2 * curl, (count, 1)) * np.sin(
        steps * rng.uniform(0.3, 2.0, (count, 1)) + rng.uniform(0, 6.3, (count, 1))
    )
    turned = angles[:, None] + sway + own
    moves = np.stack([np.cos(turned), np.sin(turned)], -1) * (lengths[:, None, None] / POINTS)
    paths: Points = roots[:, None] + np.cumsum(moves, axis=1)
    return paths


def _draw(canvas: Canvas, paths: Points, width: float, shades: Numbers, rng: Random) -> None:
    """Draw strands in all shades, thinner towards their ends, some of them translucent."""
    values = sorted(int(value) for value in rng.choice((255, 255, 200, 140), SHADES))
    parts = np.array_split(rng.permutation(paths), SHADES)
    for shade, value, part in zip(rng.permutation(shades), values, parts, strict=True):
        own = width * rng.uniform(0.5, 1.3)
        canvas.strands(part, own / 2, value, tint=shade)
        canvas.strands(part[:, : POINTS * 2 // 3], own, value, tint=shade)


def _shades(rng: Random) -> Numbers:
    """Return SHADES × 3 additions to a colour: lighter, darker, and a little of another hue."""
    light = rng.normal(0, rng.uniform(3, 45), (SHADES, 1))
    hue = rng.normal(0, rng.uniform(0, 12), (SHADES, 3))
    shades: Numbers = light + hue
    return shades


def _on(border: Points, places: Numbers) -> Points:
    """Return points of a closed outline at ``places``, 0-1 around it."""
    at = (places % 1) * OUTLINE_POINTS
    closed, grid = np.vstack([border, border[:1]]), np.arange(OUTLINE_POINTS + 1)
    return np.stack([np.interp(at, grid, closed[:, axis]) for axis in (0, 1)], -1)
