"""Rectangles, windows and the plan. Pixels; y down, x right; corners and sides in the padded image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dim.contract import STRIDE


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rows y to y + height and columns x to x + width, pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    def within(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of the part that lies inside an image of this size."""
        return slice(self.y, min(self.bottom, height)), slice(self.x, min(self.right, width))

    def overlaps(self, other: Rectangle) -> bool:
        rows = self.y < other.bottom and other.y < self.bottom
        return rows and self.x < other.right and other.x < self.right


@dataclass(frozen=True, slots=True)
class Window(Rectangle):
    """The part of the image that the network sees at once.

    Attributes:
        core: the part whose alpha is kept; the rest is context. Cores of a plan do not overlap.
    """

    core: Rectangle


@dataclass(frozen=True, slots=True)
class Plan:
    """The windows that will be computed for one trimap, and the memory that they take.

    Attributes:
        height, width: the image, pixels.
        padded_height, padded_width: the same, padded at the bottom and right to a multiple of 32.
        windows: context included; corners and sides are multiples of 32. Their cores hold every unknown pixel
            exactly once.
        tile: the largest window side allowed, pixels; only the memory limit lowers the requested one.
        context: pixels around each core, cut off at the padded image's border.
        exact: whether the context is enough for the result of the whole image; if not, windows are blended.
        unknown_pixels: how many pixels of the trimap are unknown.
        peak_bytes: expected peak resident memory of the process during the call, bytes.
        note: why the tile is not the requested one, or why a frozen shape changes the alpha; None if neither.
        seconds: expected time of the network at the speed of this machine; None if it was not measured.
        in_flight: calls of the back end that run at one time, at most; above 1 for inference servers only.
    """

    height: int
    width: int
    padded_height: int
    padded_width: int
    windows: tuple[Window, ...]
    tile: int
    context: int
    exact: bool
    unknown_pixels: int
    peak_bytes: int
    note: str | None = None
    seconds: float | None = None
    in_flight: int = 1

    @property
    def frozen_padding(self) -> bool:
        """Whether a frozen window is larger than the image: more is padded than to a multiple of 32."""
        return (self.padded_height, self.padded_width) != (round_up(self.height), round_up(self.width))

    @property
    def cost(self) -> float:
        """Area of all windows over the padded image's: 1 is as much work as the whole image at once."""
        return self.area / (self.padded_height * self.padded_width)

    @property
    def area(self) -> int:
        """Pixels of all windows together."""
        return sum(window.area for window in self.windows)


def round_up(side: int, step: int = STRIDE) -> int:
    """Return the smallest multiple of ``step`` that is at least ``side``."""
    return -(-side // step) * step


def reflected(start: int, stop: int, side: int) -> npt.NDArray[np.intp]:
    """Return the rows (or columns) of the image that rows start to stop of the padded image are copies of.

    Reflection without repeating the border, several times if the image is small, as ``numpy.pad`` does with
    ``mode="reflect"``; a side of one pixel is repeated.
    """
    period = max(2 * (side - 1), 1)
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position) if side > 1 else np.zeros_like(position)
