"""Marks that a module leaves in the traced graph, and their replacement by ONNX nodes and names.

The traced module calls :func:`crop` and :func:`name` where a graph is to drop margins, or where the runtime
reads or feeds a value. Outside an export both return their argument. In the trace each is a node of an
operator set that no engine has; :func:`resolve` removes them all.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from onnxscript import ir
from torch import Tensor

from dim.contract.cropping import (
    ENDLESS,
    IMAGE_CROP,
    REFINER_CROP,
    features_crop,
    starts_and_ends,
    switches_crop,
)
from dim.contract.layers import LEVELS

_DOMAIN = "dim"
_CROP, _NAME = "Crop", "Name"
_AXES = "crop_axes"
FEATURES, SWITCHES, IMAGE, REFINER = "features", "switches", "image", "refiner"
"""Kinds of crops, see :mod:`dim.contract.cropping`."""


def crop(x: Tensor, kind: str) -> Tensor:
    """Mark where rows and columns of N, C, H, W may be dropped; the traced shape stays the same."""
    return _marked(_CROP, x, kind)


def name(x: Tensor, value: str) -> Tensor:
    """Give a value of the exported graph its name."""
    return _marked(_NAME, x, value)


def _marked(operator: str, x: Tensor, about: str) -> Tensor:
    if not torch.compiler.is_exporting():
        return x
    node: Tensor = torch.onnx.ops.symbolic(
        f"{_DOMAIN}::{operator}", [x], {"about": about}, dtype=x.dtype, shape=x.shape
    )
    return node


def resolve(model: ir.Model, *, cropping: bool) -> ir.Model:
    """Replace the marks, in place.

    Args:
        model: a tidy graph.
        cropping: make each crop a Slice that drops nothing yet; else remove the crops.
    """
    graph, seen = model.graph, Counter[str]()
    for node in list(graph):
        if node.domain == _DOMAIN:
            about = node.attributes["about"].as_string()
            if node.op_type == _CROP and cropping:
                seen[about] += 1
                _slice(graph, node, _crop_name(about, seen[about]))
            else:
                _remove(graph, node, about if node.op_type == _NAME else None)
    graph.opset_imports.pop(_DOMAIN, None)
    return model


def _crop_name(kind: str, number: int) -> str:
    """Name a crop by its kind and its place among those: unpoolings go from the deepest level upwards."""
    if kind in (IMAGE, REFINER):
        return IMAGE_CROP if kind == IMAGE else REFINER_CROP
    return switches_crop(number) if kind == SWITCHES else features_crop(LEVELS + 1 - number)


def _remove(graph: ir.Graph, node: ir.Node, name_of_source: str | None) -> None:
    source = node.inputs[0]
    assert source is not None
    move_uses(node.outputs[0], source)
    graph.remove(node, safe=True)
    if name_of_source is not None:
        source.name = name_of_source


def _slice(graph: ir.Graph, node: ir.Node, crop_name: str) -> None:
    starts, ends = starts_and_ends(crop_name)
    limits = [_limit(graph, starts, 0), _limit(graph, ends, ENDLESS)]
    node_name = f"{crop_name}_{node.name}"
    sliced = ir.Node("", "Slice", [node.inputs[0], *limits, _axes(graph)], name=node_name)
    sliced.outputs[0].name = node_name
    graph.insert_after(node, sliced)
    move_uses(node.outputs[0], sliced.outputs[0])
    graph.remove(node, safe=True)


def _limit(graph: ir.Graph, value_name: str, number: int) -> ir.Value:
    """Return the limit of a crop for rows and columns."""
    if value_name not in graph.initializers:
        return _constant(graph, value_name, [number, number])
    return graph.initializers[value_name]


def _axes(graph: ir.Graph) -> ir.Value:
    return graph.initializers.get(_AXES) or _constant(graph, _AXES, [2, 3])


def _constant(graph: ir.Graph, value_name: str, numbers: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(numbers, np.int64), name=value_name)
    value = ir.Value(name=value_name, const_value=tensor)
    graph.initializers[value_name] = value
    return value


def move_uses(before: ir.Value, after: ir.Value) -> None:
    """Let every node that reads one value read another."""
    for node, place in list(before.uses()):
        node.replace_input_with(place, after)
