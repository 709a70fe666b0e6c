"""Let convolutions of few channels compute blocks of pixels as channels.

On a CPU, engines compute output channels in groups of 16. The decoder's last convolution has one channel, so
15 of 16 products are wasted. The same convolution with a larger kernel and a stride computes the pixels of a
block as channels, and a DepthToSpace spreads them. Each output is the same sum as before, with zeros added.

In int8 the last unpooling's DepthToSpace takes as long as the convolution behind it. There the decoder's last
two convolutions read the planes that DepthToSpace would join, and it is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnxscript import ir

from dim.contract.layers import PIXEL_BLOCK

_GROUP = 16
"""Output channels that engines compute at once on a CPU with AVX-512; 8 with AVX2."""

_AFTER_UNPOOLING = "backbone.decoder.deconv1_1"
"""The convolution at the image's size behind the last unpooling, in every network."""
_LAST = ("backbone.decoder.deconv1", "refiner.refine_pred")
"""Convolutions of few channels at the image's size, in every network."""


def compute_blocks(model: ir.Model) -> ir.Model:
    """Rewrite the last convolutions of a traced network in place, and return it.

    The sides of their inputs are multiples of :data:`~dim.contract.layers.PIXEL_BLOCK`, as those of windows
    and of crops are.
    """
    for node in list(model.graph):
        if node.op_type == "Conv" and node.name in _LAST:
            assert _keeps_size(node)
            weight = _constant(node, 1)
            side = _block_side(weight.shape[0])
            if side > 1:
                _rewrite(model.graph, node, weight, side)
    return model


def read_planes(model: ir.Model) -> ir.Model:
    """Let the last two convolutions of the decoder read the planes of the last unpooling, in place.

    Only in networks with so few channels that a group holds all of them: the planes have four times as many,
    and the sums 36 products in place of 25. Use it after :func:`compute_blocks`.

    Args:
        model: traced with ``slicing``: other graphs have no planes.
    """
    graph = model.graph
    first, last = (
        next(node for node in graph if node.op_type == "Conv" and node.name == name)
        for name in (_AFTER_UNPOOLING, _LAST[0])
    )
    channels = _constant(first, 1).shape[0]
    unpooled = first.inputs[0]
    assert unpooled is not None
    spread = unpooled.producer()
    assert spread is not None
    assert spread.op_type == "DepthToSpace"
    if channels <= _GROUP and _ints(last, "strides") == [PIXEL_BLOCK] * 2:
        _set_kernel(first, _blocks(_constant(first, 1), 2), stride=2)
        for node in (first, last):
            _set_kernel(node, _on_planes(_constant(node, 1)), stride=_ints(node, "strides")[0] // 2)
        first.replace_input_with(0, spread.inputs[0])
        graph.remove(spread, safe=True)
    return model


def _keeps_size(node: ir.Node) -> bool:
    """Return whether a convolution has one group, no stride or dilation, and padding that keeps the size."""
    kernel = _constant(node, 1).shape[2]
    return (
        _ints(node, "strides") == [1, 1]
        and _ints(node, "dilations") == [1, 1]
        and _ints(node, "pads") == [kernel // 2] * 4
        and node.attributes["group"].as_int() == 1
    )


def _block_side(channels: int) -> int:
    """Return the side of the largest block of pixels whose channels fit the group, a power of two."""
    side = 1
    while side < PIXEL_BLOCK and channels * (2 * side) ** 2 <= _GROUP:
        side *= 2
    return side


def _rewrite(graph: ir.Graph, node: ir.Node, weight: npt.NDArray[Any], side: int) -> None:
    _set_kernel(node, _blocks(weight, side), stride=side)
    _spread(graph, node, side, weight.shape[0])


def _blocks(weight: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return the weights that compute blocks of pixels at a stride of their side.

    Args:
        weight: outputs, inputs, kernel, kernel.
        side: of a block, pixels.

    Returns:
        Channels in DepthToSpace's order DCR (row in the block, column in the block, output), inputs, and
        the larger kernel twice.
    """
    outputs, inputs, kernel, _ = weight.shape
    larger = kernel + side - 1
    blocks = np.zeros((side, side, outputs, inputs, larger, larger), weight.dtype)
    for row in range(side):
        for column in range(side):
            blocks[row, column, :, :, row : row + kernel, column : column + kernel] = weight
    return blocks.reshape(-1, inputs, larger, larger)


def _on_planes(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the weights that read four planes in DepthToSpace's order DCR in place of the pixels.

    Args:
        weight: outputs, inputs, and an even kernel twice, for an even stride and padding.
    """
    outputs, inputs, kernel, _ = weight.shape
    taps = weight.reshape(outputs, inputs, kernel // 2, 2, kernel // 2, 2)
    return taps.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, 4 * inputs, kernel // 2, kernel // 2)


def _set_kernel(node: ir.Node, weight: npt.NDArray[Any], *, stride: int) -> None:
    """Give a convolution other weights, and the padding with which its output keeps the size of the image.

    Its bias is repeated for the pixels of a block.
    """
    pixels = weight.shape[0] // _constant(node, 1).shape[0]
    _replace_constant(node, 1, weight)
    # The exporter drops a bias of zeros.
    if len(node.inputs) == 3:
        _replace_constant(node, 2, np.tile(_constant(node, 2), pixels))
    kernel = weight.shape[2]
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [kernel] * 2)
    node.attributes["strides"] = ir.AttrInt64s("strides", [stride] * 2)
    node.attributes["pads"] = ir.AttrInt64s("pads", [(kernel - stride) // 2] * 4)


def _spread(graph: ir.Graph, node: ir.Node, side: int, channels: int) -> None:
    """Insert the DepthToSpace that puts the channels of a block at its pixels; it takes the output's name.

    A Slice that drops nothing follows. It states the number of channels to tools that cannot infer it behind
    DepthToSpace: onnxslim 0.1 takes it from the next broadcast.
    """
    output = node.outputs[0]
    uses, name = list(output.uses()), output.name
    attributes = [ir.AttrInt64("blocksize", side), ir.AttrString("mode", "DCR")]
    spread = ir.Node("", "DepthToSpace", [output], attributes, name=f"{node.name}.pixels")
    numbers = {"first_channel": 0, "end_of_channels": channels, "axis": 1}
    limits = [_integer(graph, f"{node.name}.{what}", number) for what, number in numbers.items()]
    stated = ir.Node("", "Slice", [spread.outputs[0], *limits], name=f"{node.name}.channels")
    output.name, spread.outputs[0].name, stated.outputs[0].name = f"{name}.blocks", spread.name, name
    graph.insert_after(node, [spread, stated])
    for user, place in uses:
        user.replace_input_with(place, stated.outputs[0])


def _integer(graph: ir.Graph, name: str, number: int) -> ir.Value:
    """Add a constant of one integer."""
    tensor = ir.tensor(np.array([number], np.int64), name=name)
    graph.initializers[name] = ir.Value(name=name, const_value=tensor)
    return graph.initializers[name]


def _constant(node: ir.Node, place: int) -> npt.NDArray[Any]:
    value = node.inputs[place]
    assert value is not None
    assert value.const_value is not None
    array: npt.NDArray[Any] = value.const_value.numpy()
    return array


def _replace_constant(node: ir.Node, place: int, array: npt.NDArray[Any]) -> None:
    """Replace weights that no other node uses; the name stays the checkpoint's."""
    value = node.inputs[place]
    assert value is not None
    assert len(value.uses()) == 1
    value.const_value = ir.tensor(array, name=value.name)


def _ints(node: ir.Node, name: str) -> list[int]:
    return list(node.attributes[name].as_ints())
