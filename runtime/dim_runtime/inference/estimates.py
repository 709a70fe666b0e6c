"""Alpha and trust of an image between its network windows and the propagation of its alpha."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dim.arrays import Float32, Floating
from dim.contract import STRIDE
from dim_runtime.backends.base import Estimate
from dim_runtime.planning.geometry import Plan, Rectangle, round_up

ALPHA, TRUST = 0, 1
"""Planes of the store."""


class EstimateStore:
    """The estimates of an image, in blocks of 32 × 32 pixels, of which only unknown ones are held.

    Args:
        plan: has the unknown blocks, which are held.
    """

    def __init__(self, plan: Plan) -> None:
        self._places = np.full((plan.padded_height // STRIDE, plan.padded_width // STRIDE), -1, np.intp)
        assert plan.unknown_blocks is not None, "a plan of two phases has them"
        rows, columns = np.nonzero(plan.unknown_blocks)
        self._places[rows, columns] = np.arange(len(rows))
        self._blocks = np.zeros((len(rows), 2, STRIDE, STRIDE), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return self._blocks.nbytes

    def add(self, part: Rectangle, estimate: Estimate, share: Float32 | None = None) -> None:
        """Add a window's estimate, float H, W, to what is there.

        Args:
            part: where it lies in the padded image.
            estimate: alpha and trust.
            share: weight of each pixel, float32 H, W; None is 1.
        """
        assert estimate.trust is not None, "only networks that propagate have two phases"
        blocks = _whole_blocks(part)
        places = self._places_in(blocks)
        held = places >= 0
        rows = part.y - blocks.y, blocks.bottom - part.bottom
        columns = part.x - blocks.x, blocks.right - part.right
        for plane, values in ((ALPHA, estimate.alpha), (TRUST, estimate.trust)):
            weighted = values if share is None else values * share
            self._blocks[places[held], plane] += _blocks(np.pad(weighted, (rows, columns)))[held]

    def read(self, part: Rectangle) -> Estimate:
        """Return alpha and trust of a part of the padded image, float32 1, H, W; 0 where nothing is held.

        Args:
            part: corners and sides are multiples of 32.
        """
        places = self._places_in(part)
        held = places >= 0
        found = np.zeros((2, *places.shape, STRIDE, STRIDE), np.float32)
        found[:, held] = self._blocks[places[held]].swapaxes(0, 1)
        planes = np.clip(found.swapaxes(2, 3).reshape(2, 1, part.height, part.width), 0, 1)
        return Estimate(planes[ALPHA], planes[TRUST])

    def _places_in(self, part: Rectangle) -> npt.NDArray[np.intp]:
        rows = slice(part.y // STRIDE, part.bottom // STRIDE)
        return self._places[rows, part.x // STRIDE : part.right // STRIDE]


def _whole_blocks(part: Rectangle) -> Rectangle:
    """Return the part enlarged to blocks of 32 × 32 pixels."""
    top, left = part.y // STRIDE * STRIDE, part.x // STRIDE * STRIDE
    return Rectangle(top, left, round_up(part.bottom) - top, round_up(part.right) - left)


def _blocks(values: Floating) -> Floating:
    """Rearrange H, W to rows of blocks, columns of blocks, 32, 32."""
    height, width = values.shape
    return values.reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE).swapaxes(1, 2)
