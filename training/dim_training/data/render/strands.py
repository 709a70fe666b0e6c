"""Strands: how hair, fur, threads and stems run through space. Arrays are n strands × k points × 3."""

from __future__ import annotations

import numpy as np

from dim.arrays import Random
from dim_training.data.render.vectors import Floats, Indices, Noise, directions, normals_of, tangents_of, unit


def along(points: int) -> Floats:
    """Return 0-1 along a strand, shaped 1 × points × 1."""
    return np.linspace(0, 1, points)[None, :, None]


def bent(starts: Floats, ways: Floats, lengths: Floats, bends: Floats, points: int) -> Floats:
    """Return parabolas from n × 3 ``starts``; ``bends`` is added to the direction towards the tip."""
    t = along(points)
    return starts[:, None] + lengths[:, None, None] * (t * ways[:, None] + t**2 * bends[:, None])


def taper(points: int, tip: float, power: float = 1.0) -> Floats:
    """Return factors on the radius from 1 at the root to ``tip``, shaped 1 × points."""
    return 1 - (1 - tip) * np.linspace(0, 1, points)[None] ** power


def nearest(points: Floats, centres: Floats, count: int = 1) -> Indices:
    """Return for n × 3 points the ``count`` nearest of m × 3 centres, n × count, nearest first."""
    found = np.empty((len(points), count), np.int64)
    squares = (centres**2).sum(1)
    for begin in range(0, len(points), 8192):
        part = points[begin : begin + 8192]
        # |p − c|² without |p|², which is the same for all centres.
        distance = squares - 2 * part @ centres.T
        chosen = (
            np.argpartition(distance, count - 1, axis=1)[:, :count]
            if count > 1
            else distance.argmin(1)[:, None]
        )
        order = np.take_along_axis(distance, chosen, 1).argsort(1)
        found[begin : begin + 8192] = np.take_along_axis(chosen, order, 1)
    return found


def clump(rng: Random, strands: Floats, each: float, strength: float, power: float = 1.3) -> Floats:
    """Pull strands towards leaders among them, tips the most.

    Args:
        each: strands for one leader.
        strength: 0 leaves the strands alone; 1 makes the tips of a clump meet.
        power: of the place along a strand, 0-1, with which the pull grows.
    """
    count = len(strands)
    leaders = strands[rng.choice(count, max(1, round(count / each)), replace=False)]
    target = leaders[nearest(strands[:, 0], leaders[:, 0])[:, 0]]
    pull = strength * rng.uniform(0.65, 1, (count, 1, 1)) * along(strands.shape[1]) ** power
    return strands + pull * (target - strands)


def coil(rng: Random, strands: Floats, radius: float, turns: float, lock: float) -> Floats:
    """Wind strands into helices; neighbours within about ``lock`` units keep in step."""
    t = along(strands.shape[1])[..., 0]
    first, second = normals_of(tangents_of(strands))
    step = 5 * Noise(rng, lock)(strands[:, 0])
    angle = 2 * np.pi * turns * t * rng.uniform(0.92, 1.08, (len(strands), 1)) + step
    # The helix opens over the first fifth, so that roots stay where they are.
    open_ = radius * np.minimum(1, 5 * t) * rng.uniform(0.8, 1.2, (len(strands), 1))
    return strands + open_[..., None] * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)


def frizz(rng: Random, strands: Floats, amount: float | Floats, waves: float) -> Floats:
    """Let strands wander by about ``amount``, one number for all or one for each, in ``waves`` waves."""
    count, points = strands.shape[:2]
    t = along(points)[..., 0]
    offset = np.zeros_like(strands)
    for octave in (1.0, 2.3):
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        speed = waves * octave * rng.uniform(0.6, 1.4, (count, 1))
        swing = np.sin(2 * np.pi * speed * t + phase) - np.sin(phase)
        offset += swing[..., None] * directions(rng, count)[:, None] / octave
    size = np.broadcast_to(np.asarray(amount, np.float64), (count,))
    return strands + size[:, None, None] * np.sqrt(along(points)) * offset


def resample(line: Floats, points: int) -> Floats:
    """Return ``points`` points evenly spaced along one line, k × 3."""
    run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    places = np.linspace(0, run[-1], points)
    return np.stack([np.interp(places, run, line[:, axis]) for axis in range(3)], -1)


def ply(line: Floats, count: int, radius: float, turns: float) -> Floats:
    """Twist ``count`` strands around one line, k × 3; ``turns`` over its whole length."""
    first, second = normals_of(tangents_of(line))
    angle = 2 * np.pi * (turns * np.linspace(0, 1, len(line))[None] + np.arange(count)[:, None] / count)
    circle = np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second
    return line[None] + radius * circle


def length_of(line: Floats) -> float:
    """Return the length of one line, k × 3."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def fuzz(rng: Random, lines: Floats, count: int, length: float, points: int = 5) -> tuple[Floats, Indices]:
    """Return short fibres that stand off random places of the lines, and the line that each starts from."""
    owner = rng.integers(len(lines), size=count)
    place = rng.integers(lines.shape[1] - 1, size=count)
    share = rng.random((count, 1))
    start = lines[owner, place] * (1 - share) + lines[owner, place + 1] * share
    own_length = length * rng.gamma(2.0, 0.5, count)
    tilt = unit(lines[owner, place + 1] - lines[owner, place]) * rng.choice([-0.7, 0.7], (count, 1))
    way = unit(directions(rng, count) + tilt)
    return bent(start, way, own_length, 0.8 * rng.normal(size=(count, 3)), points), owner
