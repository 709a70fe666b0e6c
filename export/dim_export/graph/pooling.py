"""Pooling and unpooling in an exported graph: few nodes, all of which every engine supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dim.contract.cropping import ENDLESS
from dim.network.pooling import PhasePooling, PoolState, Switches
from dim_export.graph.marks import FEATURES, SWITCHES, crop


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
        """Unpool as the base class does, with products, because ONNX Runtime's Where is several times slower.

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


class SlicingPooling(SymbolicPooling):
    """Symbolic pooling that extracts each plane with a Slice, instead of SpaceToDepth and Split.

    The bits are the same. In int8 graphs it is faster (OpenVINO by 4 to 5 %, ONNX Runtime by 5 to 7 %). In
    float32 ONNX Runtime is slower with it (by 5 to 8 %).
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


def _every_second(row: int, column: int) -> list[Tensor]:
    """Return the further inputs of Slice: starts (first row and column), ends, axes, steps."""
    return [torch.tensor(values) for values in ([row, column], [ENDLESS, ENDLESS], [2, 3], [2, 2])]


def _onnx_node(
    operator: str, x: Tensor, shape: tuple[int, ...], *further: Tensor, **attributes: Any
) -> Tensor:
    node: Tensor = torch.onnx.ops.symbolic(operator, [x, *further], attributes, dtype=x.dtype, shape=shape)
    return node
