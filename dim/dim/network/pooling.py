"""2×2 max-pooling that remembers where each maximum was, and the unpooling that puts values back there.

Two forms of one function, bit-equal, ties included:

* :class:`IndexPooling` uses PyTorch's index tensors: fastest for training.
* :class:`PhasePooling` uses neither indices nor MaxUnpool, which TensorRT and OpenVINO do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Switches(NamedTuple):
    """Where the maximum of each 2×2 window was; booleans N, C, H/2, W/2, the first maximum wins a tie."""

    top_row: Tensor
    left_in_top: Tensor
    left_in_bottom: Tensor


PoolState = Tensor | Switches
"""What a pool hands to its unpool."""


class Pooling(Protocol):
    """A pool and the unpool that inverts it. Maps are N, C, H, W with even H and W."""

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]: ...

    def unpool(self, x: Tensor, memory: PoolState) -> Tensor: ...


class IndexPooling:
    """``max_pool2d(return_indices=True)`` and ``max_unpool2d``."""

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return pooled, indices

    def unpool(self, x: Tensor, memory: PoolState) -> Tensor:
        assert isinstance(memory, Tensor)
        return F.max_unpool2d(x, memory, [2, 2])


class PhasePooling:
    """Pooling over four phase planes: a = top left, b = top right, c = bottom left, d = bottom right.

    Subclasses may replace the rearrangements; their channel order is depth-column-row (ONNX "DCR").
    """

    def space_to_depth(self, x: Tensor) -> Tensor:
        """N, C, H, W -> N, 4·C, H/2, W/2: the planes a, b, c, d one behind the other."""
        return torch.cat([x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]], 1)

    def phases(self, x: Tensor) -> Sequence[Tensor]:
        """The planes a, b, c, d of N, C, H, W; each N, C, H/2, W/2."""
        return self.space_to_depth(x).chunk(4, dim=1)

    def depth_to_space(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`space_to_depth`."""
        n, c, h, w = x.shape
        return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        a, b, c, d = self.phases(x)
        top, bottom = torch.maximum(a, b), torch.maximum(c, d)
        return torch.maximum(top, bottom), Switches(top >= bottom, a >= b, c >= d)

    def unpool(self, x: Tensor, memory: PoolState) -> Tensor:
        assert isinstance(memory, Switches)
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        top, bottom = torch.where(memory.top_row, x, zero), torch.where(memory.top_row, zero, x)
        a, b = torch.where(memory.left_in_top, top, zero), torch.where(memory.left_in_top, zero, top)
        c, d = (
            torch.where(memory.left_in_bottom, bottom, zero),
            torch.where(memory.left_in_bottom, zero, bottom),
        )
        return self.depth_to_space(torch.cat([a, b, c, d], 1))
