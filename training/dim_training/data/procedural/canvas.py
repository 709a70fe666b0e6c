"""A canvas for procedural shapes, and the outlines and curves that they are made of.

Everything is drawn at twice the size, so that thin structures are anti-aliased.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Random, UInt8

SUPERSAMPLING = 2
NEUTRAL = 128
"""Level of a tint that changes nothing."""
OUTLINE_POINTS = 96
CURVE_POINTS = 12
_SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with."""

Points = npt.NDArray[np.float64]
"""… × 2: x, y on the enlarged canvas."""


class Shape(NamedTuple):
    """A drawn foreground.

    Attributes:
        alpha: uint8 side × side.
        tint: uint8 side × side × 3, what is added to the shape's colours, plus :data:`NEUTRAL`: strands,
            leaves and yarns differ from their neighbours. None where nothing is added.
    """

    alpha: UInt8
    tint: UInt8 | None


class Canvas:
    """Alpha and tint of one shape.

    Attributes:
        side: of the enlarged canvas that coordinates refer to.
        alpha: uint8 side × side.
        tint: uint8 of the finished shape's size × 3; None until something tinted is drawn.
    """

    def __init__(self, side: int) -> None:
        self.side = side * SUPERSAMPLING
        self.alpha: UInt8 = np.zeros((self.side, self.side), np.uint8)
        self.tint: UInt8 | None = None

    def finished(self) -> Shape:
        """Return alpha at its final size, by averaging pixels."""
        side = self.side // SUPERSAMPLING
        alpha = cv2.resize(self.alpha, (side, side), interpolation=cv2.INTER_AREA)
        return Shape(alpha.astype(np.uint8, copy=False), self.tint)

    def fill(self, outline: Points, value: int = 255, *, tint: npt.NDArray[np.float64] | None = None) -> None:
        """Fill a polygon with alpha ``value``, 0-255, and its tint if given."""
        cv2.fillPoly(self.alpha, [_fixed(outline)], value, cv2.LINE_AA, _SHIFT)
        if tint is not None:
            cv2.fillPoly(self._tint(), [_fixed(outline / SUPERSAMPLING)], _level(tint), cv2.LINE_8, _SHIFT)

    def strands(
        self,
        paths: Points,
        width: float,
        value: int = 255,
        *,
        tint: npt.NDArray[np.float64] | None = None,
        visible: bool = True,
    ) -> None:
        """Draw curves of one width; ``paths`` n × points × 2. Without ``visible`` only the tint is drawn."""
        thickness = max(1, round(width))
        if visible:
            cv2.polylines(self.alpha, list(_fixed(paths)), False, value, thickness, cv2.LINE_AA, _SHIFT)
        if tint is not None:
            # Wider than the strand: its soft border has the strand's colour too.
            cv2.polylines(
                self._tint(),
                list(_fixed(paths / SUPERSAMPLING)),
                False,
                _level(tint),
                thickness // SUPERSAMPLING + 1,
                cv2.LINE_8,
                _SHIFT,
            )

    def _tint(self) -> UInt8:
        if self.tint is None:
            side = self.side // SUPERSAMPLING
            self.tint = np.full((side, side, 3), NEUTRAL, np.uint8)
        return self.tint


def outline(side: int, rng: Random, *, radius: float, wobble: float) -> Points:
    """Draw a closed curve around the canvas centre with random low harmonics; OUTLINE_POINTS × 2."""
    angles = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    shape = np.ones_like(angles)
    for harmonic in range(1, 7):
        shape += wobble / harmonic * rng.normal() * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
    centre = side * rng.uniform(0.35, 0.65, 2)
    reach = radius * side * np.clip(shape, 0.2, 2)[:, None]
    points: Points = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points


def curve(start: Points, angle: float, length: float, rng: Random) -> Points:
    """Draw a path of CURVE_POINTS points whose direction drifts: gravity, curl and waves."""
    steps = np.arange(CURVE_POINTS)
    bend = rng.normal(0, 0.12) * steps + rng.normal(0, 0.35) * np.sin(steps * rng.uniform(0.3, 1.5))
    directions = np.stack([np.cos(angle + bend), np.sin(angle + bend)], 1)
    return start + np.cumsum(directions * (length / CURVE_POINTS), axis=0)


def log_uniform(low: float, high: float, rng: Random) -> float:
    """Draw a number whose logarithm is uniform; both bounds are above 0."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _level(tint: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.clip(np.round(tint + NEUTRAL), 0, 255)
    return float(red), float(green), float(blue)
