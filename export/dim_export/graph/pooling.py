"""Pooling and unpooling in an exported graph: few nodes, all of which every engine supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dim.contract.cropping import ENDLESS
from dim.network.pooling import PhasePooling, PoolState, Switches
from dim_export.graph.marks import FEATURES, SWITCHES, crop

PLACES = (3.0, 2.0, 1.0, 0.0)
"""Numbers of the pixels of a 2 × 2 window: top left, top right, bottom left, bottom right."""


class SymbolicPooling(PhasePooling):
    """Phase pooling whose rearrangements become one ONNX node each in an exported graph.

    Outside an export it computes the same as its base class.
    """

    def space_to_depth(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().space_to_depth(x)
        n, c, h, w = x.shape
        return _onnx_node("SpaceToDepth", x, (n, 4 * c, h // 2, w // 2), blocksize=2)

    def depth_to_space(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().depth_to_space(x)
        n, c, h, w = x.shape
        return _onnx_node("DepthToSpace", x, (n, c // 4, 2 * h, 2 * w), blocksize=2, mode="DCR")

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        """Pool as the base class does; the state is one tensor, the three switches concatenated.

        OpenVINO chooses the order of work and compares the values only when the comparison is needed. With
        three separate switches that would be during the unpooling. The values, eight times the size of the
        switches, would be kept until then.
        """
        pooled, state = super().pool(x)
        assert isinstance(state, Switches)
        return pooled, crop(torch.cat(state, 1), SWITCHES)

    def unpool(self, x: Tensor, state: PoolState) -> Tensor:
        """Unpool without planes: enlarge the map to twice the side, and set all but the maxima to 0.

        Every value and the place of its maximum are repeated for the 2 × 2 pixels of the window. A pixel is
        kept where the place is the pixel's own. ONNX Runtime's DepthToSpace, which would join four planes,
        takes several times longer. 1 · x is exact, so the bits are the same for every finite x.

        The switches must be computed before x, or the planes that they compare are kept until then; what is
        as large as the result must be computed after x. ONNX Runtime begins with the input of a node that was
        traced last, and OpenVINO with the first input.
        """
        assert isinstance(state, Tensor)
        x = crop(x, FEATURES)
        enlarged, zero = _enlarged(x), x[:, :1] * 0
        pixels = self.depth_to_space(zero + x.new_tensor(PLACES).view(1, 4, 1, 1))
        kept = _enlarged(_places(state, zero)) == pixels
        return kept.to(x.dtype) * enlarged


def _places(state: Tensor, zero: Tensor) -> Tensor:
    """Return the place of each maximum, as :data:`PLACES`.

    Args:
        state: the switches side by side.
        zero: N, 1, H, W zeros, which make the places wait for the map that is unpooled.
    """
    two = zero + 2
    top_row, left_in_top, left_in_bottom = (switch.to(zero.dtype) for switch in state.chunk(3, dim=1))
    # 2 or 3 in the top row. Below, the product is 0.
    return torch.maximum(top_row * (left_in_top + two), left_in_bottom)


def _enlarged(x: Tensor) -> Tensor:
    """Repeat each value of N, C, H, W for 2 × 2 pixels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class SlicingPooling(SymbolicPooling):
    """Symbolic pooling for int8 graphs: a Slice extracts each plane, and the unpooling joins planes.

    The bits are the same. In int8 graphs the slices are faster than SpaceToDepth and Split (OpenVINO by 4 to
    5 %, ONNX Runtime by 5 to 7 %). In float32 ONNX Runtime is slower with them (by 5 to 8 %). The planes of
    the last unpooling need not be joined there (:mod:`dim_export.graph.pixel_blocks`).
    """

    def phases(self, x: Tensor) -> Sequence[Tensor]:
        if not torch.compiler.is_exporting():
            return super().phases(x)
        n, c, h, w = x.shape
        return [
            _onnx_node("Slice", x, (n, c, h // 2, w // 2), *_every_second(row, column))
            for row in (0, 1)
            for column in (0, 1)
        ]

    def unpool(self, x: Tensor, state: PoolState) -> Tensor:
        """Join four planes of products, because ONNX Runtime's Where is several times slower.

        1 · x and x − 1 · x are exact, so the bits are the same for every finite x. The switches are the first
        factor, because engines compute the inputs of a node in order, and the switches must come first.
        """
        assert isinstance(state, Tensor)
        x = crop(x, FEATURES)
        top_row, left_in_top, left_in_bottom = (switch.to(x.dtype) for switch in state.chunk(3, dim=1))
        top = top_row * x
        bottom = x - top
        a, c = left_in_top * top, left_in_bottom * bottom
        return self.depth_to_space(torch.cat([a, top - a, c, bottom - c], 1))


def bounded(x: Tensor) -> Tensor:
    """State that the sides of N, C, H, W are below ENDLESS, by a Slice that drops nothing.

    OpenVINO computes the bounds of free sides. Without one, twice the largest number overflows in its Resize,
    and the graph cannot be read.
    """
    if not torch.compiler.is_exporting():
        return x
    limits = [torch.tensor(values) for values in ([0, 0], [ENDLESS, ENDLESS], [2, 3])]
    return _onnx_node("Slice", x, tuple(x.shape), *limits)


def _every_second(row: int, column: int) -> list[Tensor]:
    """Return the further inputs of Slice: starts (first row and column), ends, axes, steps."""
    return [torch.tensor(values) for values in ([row, column], [ENDLESS, ENDLESS], [2, 3], [2, 2])]


def _onnx_node(
    operator: str, x: Tensor, shape: tuple[int, ...], *further: Tensor, **attributes: Any
) -> Tensor:
    node: Tensor = torch.onnx.ops.symbolic(operator, [x, *further], attributes, dtype=x.dtype, shape=shape)
    return node
