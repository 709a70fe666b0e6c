"""Closed shapes and sheets as meshes, and ellipsoids that hair grows on and rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from dim.arrays import Random
from dim_training.data.render.scene import Material, Surface
from dim_training.data.render.vectors import Floats, Indices, directions, unit


def grid(columns: int, rows: int) -> tuple[Floats, Floats, Indices]:
    """Return u and v, 0-1, of a grid's vertices, and its quads."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows), indexing="ij")
    number = np.arange(columns * rows).reshape(columns, rows)
    quads = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], -1)
    return u.ravel(), v.ravel(), quads.reshape(-1, 4)


@dataclass(frozen=True)
class Ellipsoid:
    """A solid: hair starts on its surface and is kept outside of it."""

    centre: Floats
    radii: Floats
    turn: Floats = field(default_factory=lambda: np.eye(3))

    def depth(self, points: Floats) -> Floats:
        """Return below 1 inside, 1 on the surface, for … × 3 points."""
        return cast(Floats, np.linalg.norm((points - self.centre) @ self.turn / self.radii, axis=-1))

    def roots(self, rng: Random, count: int) -> tuple[Floats, Floats]:
        """Return ``count`` points, evenly spread over the surface, and its normals there."""
        ball = directions(rng, 6 * count)
        # Area of the surface for each solid angle of the ball, up to a factor.
        area = np.linalg.norm(ball / self.radii, axis=1)
        ball = ball[rng.random(len(ball)) * area.max() < area][:count]
        return self.centre + ball * self.radii @ self.turn.T, unit(ball / self.radii) @ self.turn.T

    def pushed_out(self, points: Floats, margin: float) -> Floats:
        """Return the points, moved out of the solid enlarged by ``margin`` where they are inside."""
        depth = self.depth(points)[..., None]
        outside = self.centre + (points - self.centre) * (1 + margin) / np.maximum(depth, 0.05)
        return np.where(depth < 1 + margin, outside, points)

    @property
    def area(self) -> float:
        """Knud Thomsen's approximation of the surface's area, in square units."""
        a, b, c = self.radii**1.6075
        return float(4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075))

    def surface(self, tint: Floats, material: Material, *, scale: float = 1.0) -> Surface:
        """Return the ellipsoid's mesh, its radii multiplied by ``scale``."""
        u, v, quads = grid(49, 25)
        ball = ball_points(u, v)
        return Surface(self.centre + ball * self.radii * scale @ self.turn.T, quads, tint, material)


def ball_points(u: Floats, v: Floats) -> Floats:
    """Return points of the unit ball: u runs around the vertical axis, v from the bottom to the top."""
    around, down = 2 * np.pi * u, np.pi * (1 - v)
    return np.stack([np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)], -1)


def lathe(
    profile: Callable[[Floats], Floats], height: float, *, columns: int = 97, rows: int = 81
) -> tuple[Floats, Indices]:
    """Return vertices and quads of a surface of revolution; ``profile`` maps the height, 0-1, to a radius."""
    u, v, quads = grid(columns, rows)
    radius = profile(v)
    around = 2 * np.pi * u
    return np.stack([radius * np.cos(around), radius * np.sin(around), height * (v - 0.5)], -1), quads


def smooth_profile(rng: Random, knots: int, low: float, high: float) -> Callable[[Floats], Floats]:
    """Return a random smooth positive function of 0-1."""
    steps = np.cumsum(rng.normal(0, 0.5, knots))
    wanted = low + (high - low) * (steps - steps.min()) / max(float(np.ptp(steps)), 1e-6)
    fine = np.interp(np.linspace(-0.1, 1.1, 240), np.linspace(0, 1, knots), wanted)
    window = np.hanning(41)
    fine = np.convolve(np.pad(fine, 20, mode="edge"), window / window.sum(), "valid")
    return lambda v: np.interp(v, np.linspace(-0.1, 1.1, 240), fine)
