"""Rectangles, windows and the plan. Pixels; y down, x right; corners and sides in the padded image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dim.contract import STRIDE
from dim.contract.cropping import Margins
from dim.contract.layers import PROPAGATION_SHARE, Work
from dim_runtime.arrays import Sliceable


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rows y to y + height and columns x to x + width, pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.x + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def grown(self, pixels: int, limits: Rectangle) -> Rectangle:
        """Return the rectangle with a border of so many pixels, cut off where the limits end."""
        top, left = max(self.y - pixels, limits.y), max(self.x - pixels, limits.x)
        bottom, right = min(self.bottom + pixels, limits.bottom), min(self.right + pixels, limits.right)
        return Rectangle(top, left, bottom - top, right - left)

    def within(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of the part that lies inside an image of this size."""
        return slice(self.y, min(self.bottom, height)), slice(self.x, min(self.right, width))

    def overlaps(self, other: Rectangle) -> bool:
        """Return whether the two share a pixel."""
        rows = self.y < other.bottom and other.y < self.bottom
        return rows and self.x < other.right and other.x < self.right


@dataclass(frozen=True, slots=True)
class Window(Rectangle):
    """The part of the image that the network sees at once.

    Attributes:
        core: the part that the window is for; the rest is context. Cores of a plan do not overlap.
        covered: the part that every layer computes: the core, or the window where layers drop no margins.
        kept: the part whose alpha is used: the core, and what is blended with other windows. It may be larger
            than what is covered, because the last layers compute some pixels more.
    """

    core: Rectangle
    covered: Rectangle
    kept: Rectangle

    @property
    def margins(self) -> Margins:
        """Pixels on each side of what is covered."""
        return _border(self, self.covered)

    @property
    def beyond(self) -> Margins:
        """Pixels on each side of what is covered whose alpha is used too."""
        return _border(self.kept, self.covered)

    def multiply_adds(self, layers: Sequence[Work]) -> float:
        """Return the work of the layers in this window."""
        return sum(
            layer.multiply_adds
            * (self.area if layer.margin is None else self.covered.grown(layer.margin, self).area)
            for layer in layers
        )


def _border(outer: Rectangle, inner: Rectangle) -> Margins:
    return Margins(
        inner.y - outer.y, inner.x - outer.x, outer.bottom - inner.bottom, outer.right - inner.right
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """The windows that will be computed for one trimap, and the memory that they take.

    Attributes:
        height, width: the image, pixels.
        padded_height, padded_width: the same, padded at the bottom and right to a multiple of 32.
        windows: context included; corners and sides are multiples of 32. Their cores hold every unknown pixel
            exactly once; corners and sides of cores are multiples of 8 where layers drop margins, else of 32.
        propagation: windows in which the stitched alpha is propagated afterwards, likewise; none where the
            network does not propagate, or where each window does so itself.
        unknown_blocks: bool, blocks of 32 × 32 pixels of the padded image: which ones hold an unknown pixel.
        tile: the largest window side allowed, pixels; only the memory limit lowers the requested one.
        context: pixels around each core of the windows, at least, cut off at the padded image's border.
        exact: whether the context is enough for the result of the whole image; if not, windows are blended.
        unknown_pixels: how many pixels of the trimap are unknown.
        peak_bytes: expected peak resident memory of the process during the call, bytes.
        note: why the tile is not the requested one, or why a frozen shape changes the alpha; None if neither.
        reason: how the tile was chosen; None if the user set it.
        layers: the work of a window for each pixel, by the part that each layer computes.
        seconds: expected time of the network at the speed of this machine; None if it was not measured.
        in_flight: calls of the back end that run at one time, at most; above 1 for inference servers, and for
            small windows in OpenVINO.
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
    reason: str | None = field(default=None, compare=False)
    layers: tuple[Work, ...] = (Work(None, 1.0),)
    propagation: tuple[Window, ...] = ()
    unknown_blocks: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    seconds: float | None = None
    in_flight: int = 1

    @property
    def frozen_padding(self) -> bool:
        """Whether a frozen window is larger than the image: more is padded than to a multiple of 32."""
        return (self.padded_height, self.padded_width) != (round_up(self.height), round_up(self.width))

    @property
    def cost(self) -> float:
        """Multiply-adds of all windows over the whole image's: 1 is as much work as the whole at once.

        Propagation counts as :data:`~dim.contract.layers.PROPAGATION_SHARE` of the network for each pixel.
        """
        return self.area / (self.padded_height * self.padded_width)

    @property
    def area(self) -> float:
        """Pixels of the image that are as much work, computed whole, as all windows together."""
        each = sum(layer.multiply_adds for layer in self.layers)
        network = sum(window.multiply_adds(self.layers) for window in self.windows) / each
        if not self.propagation:
            return network
        share = PROPAGATION_SHARE / (1 + PROPAGATION_SHARE)
        return (1 - share) * network + share * sum(window.area for window in self.propagation)

    @property
    def steps(self) -> int:
        """Number of windows of both phases."""
        return len(self.windows) + len(self.propagation)


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


def read_reflected(array: Sliceable, part: Rectangle) -> npt.NDArray[Any]:
    """Read a rectangle of an array H, W or H, W, C as if it were padded by reflection, bottom and right."""
    height, width = array.shape[:2]
    rows, columns = reflected(part.y, part.bottom, height), reflected(part.x, part.right, width)
    top, left = int(rows.min()), int(columns.min())
    found = np.asarray(array[top : int(rows.max()) + 1, left : int(columns.max()) + 1])
    if part.bottom > height:
        found = found[rows - top]
    if part.right > width:
        found = found[:, columns - left]
    return np.ascontiguousarray(found)
