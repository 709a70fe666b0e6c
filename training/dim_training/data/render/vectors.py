"""Arithmetic with points and directions in space, and smooth random functions of space."""

from __future__ import annotations

from itertools import product
from typing import cast

import numpy as np
import numpy.typing as npt

from dim.arrays import Random

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

UP = np.array([0.0, 0.0, 1.0])
"""The vertical; the camera looks along +y, and x points to the right of the image."""
LATTICE = 16
"""Cells after which :class:`Noise` repeats."""


def unit(vectors: Floats) -> Floats:
    """Scale … × 3 vectors to length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return cast(Floats, vectors / np.maximum(lengths, 1e-9))


def directions(rng: Random, count: int) -> Floats:
    """Return ``count`` × 3 directions, uniform over the sphere."""
    return unit(rng.normal(size=(count, 3)))


def rotation(axis: Floats, angle: float) -> Floats:
    """Return the 3 × 3 matrix of a turn by ``angle`` radians around ``axis`` (Rodrigues' formula)."""
    x, y, z = unit(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return cast(Floats, np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def random_rotation(rng: Random, largest: float = np.pi) -> Floats:
    """Return a turn around a random axis by at most ``largest`` radians."""
    return rotation(directions(rng, 1)[0], float(rng.uniform(-largest, largest)))


def normals_of(tangents: Floats) -> tuple[Floats, Floats]:
    """Return two directions, … × 3 each, perpendicular to the tangents and to each other."""
    # The helper must not be parallel to the tangent.
    helper = np.where(np.abs(tangents[..., 2:]) < 0.8, UP, np.array([1.0, 0.0, 0.0]))
    first = unit(np.cross(tangents, helper))
    return first, np.cross(tangents, first)


def tangents_of(lines: Floats) -> Floats:
    """Return the directions of … × k × 3 lines at their points."""
    return unit(np.gradient(lines, axis=-2))


def smoothstep(values: Floats) -> Floats:
    """Map 0-1 to 0-1 with zero slope at both ends; values outside are clipped."""
    clipped = np.clip(values, 0, 1)
    return clipped**2 * (3 - 2 * clipped)


class Noise:
    """A smooth random function of space: values on a lattice, interpolated.

    Values are about normal with standard deviation 0.6; ``channels`` of them for each point.
    """

    def __init__(self, rng: Random, scale: float, channels: int = 1) -> None:
        self.scale = scale
        self.lattice = rng.normal(size=(LATTICE, LATTICE, LATTICE, channels))
        self.shift = rng.uniform(0, LATTICE, 3)

    def __call__(self, points: Floats) -> Floats:
        """Return … × channels values at … × 3 points."""
        places = points / self.scale + self.shift
        cells = np.floor(places).astype(np.int64)
        shares = smoothstep(places - cells)
        total = np.zeros((*points.shape[:-1], self.lattice.shape[-1]))
        # Each of the eight corners of a cell counts by its nearness along every axis.
        for corner in product((0, 1), repeat=3):
            near = np.where(np.array(corner) == 1, shares, 1 - shares).prod(-1)
            x, y, z = np.moveaxis((cells + corner) % LATTICE, -1, 0)
            total += near[..., None] * self.lattice[x, y, z]
        return total


def scalar_noise(rng: Random, scale: float, points: Floats, octaves: int = 1) -> Floats:
    """Return one smooth random value for each of … × 3 points; each octave has half the scale and weight."""
    total = np.zeros(points.shape[:-1])
    for octave in range(octaves):
        total += Noise(rng, scale / 2**octave)(points)[..., 0] / 2**octave
    return total
