"""2×2 max-pooling that stores the place of each maximum, and the unpooling that writes values there.

Two forms of one function, bit-equal, ties included:

* :class:`IndexPooling` uses PyTorch's index tensors: fastest for training.
* :class:`PhasePooling` uses neither indices nor MaxUnpool, which TensorRT and OpenVINO do not support.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Switches(NamedTuple):
    """Place of the maximum of each 2×2 window; booleans N, C, H/2, W/2. Of equal values the first is it."""

    top_row: Tensor
    left_in_top: Tensor
    left_in_bottom: Tensor


PoolState = Tensor | Switches
"""Places of the maxima, which the matching unpool needs."""


class Pooling(Protocol):
    """A pool and the unpool that inverts it. Maps are N, C, H, W with even H and W."""

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        """Return the maxima, N, C, H/2, W/2, and their places."""
        ...

    def unpool(self, x: Tensor, state: PoolState) -> Tensor:
        """Return N, C, H, W: the values of ``x`` at the places of the maxima, and 0 elsewhere."""
        ...


class IndexPooling:
    """``max_pool2d(return_indices=True)`` and ``max_unpool2d``."""

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return pooled, indices

    def unpool(self, x: Tensor, state: PoolState) -> Tensor:
        assert isinstance(state, Tensor)
        return F.max_unpool2d(x, state, [2, 2])


class PhasePooling:
    """Pooling over four phase planes: a = top left, b = top right, c = bottom left, d = bottom right.

    Subclasses may override the rearrangements; their channel order is depth-column-row (ONNX "DCR").
    """

    def space_to_depth(self, x: Tensor) -> Tensor:
        """Rearrange N, C, H, W to N, 4·C, H/2, W/2: the planes a, then b, c and d."""
        return torch.cat([x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]], 1)

    def phases(self, x: Tensor) -> Sequence[Tensor]:
        """Split N, C, H, W into the planes a, b, c, d; each N, C, H/2, W/2."""
        return self.space_to_depth(x).chunk(4, dim=1)

    def depth_to_space(self, x: Tensor) -> Tensor:
        """Invert :meth:`space_to_depth`."""
        n, c, h, w = x.shape
        return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        a, b, c, d = self.phases(x)
        top, bottom = torch.maximum(a, b), torch.maximum(c, d)
        return torch.maximum(top, bottom), Switches(top >= bottom, a >= b, c >= d)

    def unpool(self, x: Tensor, state: PoolState) -> Tensor:
        assert isinstance(state, Switches)
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        top, bottom = torch.where(state.top_row, x, zero), torch.where(state.top_row, zero, x)
        a, b = torch.where(state.left_in_top, top, zero), torch.where(state.left_in_top, zero, top)
        c, d = (
            torch.where(state.left_in_bottom, bottom, zero),
            torch.where(state.left_in_bottom, zero, bottom),
        )
        return self.depth_to_space(torch.cat([a, b, c, d], 1))
