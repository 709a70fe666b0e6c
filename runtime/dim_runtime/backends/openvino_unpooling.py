"""Unpool integers in an int8 graph, before OpenVINO compiles it.

An int8 artefact multiplies what it unpools with switches, joins four planes, and quantises them again, in the
steps that they already have. OpenVINO computes that in bf16 or float32, and in graphs with free shapes it
reorders the planes before and behind the second quantisation. Here switches, products and planes are uint8,
and the second quantisation is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

ARITHMETIC = ("Multiply", "Subtract")


class _Restored(NamedTuple):
    """What a DequantizeLinear with the zero point 0 became.

    Attributes:
        integers: the output of a node, int8 or uint8.
        scale: the output of a constant.
        last: the node whose output is float.
    """

    integers: Any
    scale: Any
    last: Any


class _Leaf(NamedTuple):
    """A float input of the arithmetic of an unpooling."""

    reader: Any
    place: int
    maker: Any


def unpool_integers(model: Any) -> int:
    """Let an ``openvino.Model`` unpool integers wherever it unpools what is quantised; return the places.

    Args:
        model: read from an int8 artefact whose ReLUs :func:`with_unsigned_values` has replaced; changed.
    """
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            count += _unpool_before(node)
    if count:
        model.validate_nodes_and_infer_types()
    return count


def _unpool_before(second: Any) -> bool:
    """Let the unpooling whose result a FakeQuantize reads return integers, if it is one."""
    # 1. Find the four planes, and what the second quantisation becomes.
    planes = joined = second.input_value(0)
    if planes.get_node().get_type_name() == "DepthToSpace":
        planes = planes.get_node().input_value(0)
    after = _restored_behind(second)
    if planes.get_node().get_type_name() != "Concat" or after is None or len(_readers(joined)) != 1:
        return False
    # 2. Find the switches, and the one map that is unpooled. Change nothing if anything else is among them.
    leaves = list(_leaves(planes.get_node()))
    switches = [leaf for leaf in leaves if _is_switch(leaf.maker)]
    maps = [leaf for leaf in leaves if not _is_switch(leaf.maker)]
    source = _unpooled(maps)
    if not switches or source is None or not _same(source.scale, after.scale):
        return False
    # 3. Switches and map become uint8; all between them follows.
    _make_integers(switches, maps, source)
    # 4. The integers are restored where the second quantisation was.
    _restore(joined, after)
    return True


def _make_integers(switches: list[_Leaf], maps: list[_Leaf], source: _Restored) -> None:
    from openvino import opset13

    converted: dict[str, Any] = {}
    for leaf in switches:
        name = leaf.maker.get_friendly_name()
        if name not in converted:
            converted[name] = opset13.convert(leaf.maker.input_value(0), "u8").output(0)
        leaf.reader.input(leaf.place).replace_source_output(converted[name])
    crop = maps[0].maker
    if crop.get_type_name() == "Slice":
        crop.input(0).replace_source_output(source.integers)
        return
    for leaf in maps:
        leaf.reader.input(leaf.place).replace_source_output(source.integers)


def _restore(joined: Any, after: _Restored) -> None:
    from openvino import opset13

    restored = opset13.multiply(opset13.convert(joined, "f32"), after.scale)
    for reader in _readers(after.last.output(0)):
        reader.replace_source_output(restored.output(0))


def _restored_behind(quantised: Any) -> _Restored | None:
    """Return what restores the output of a FakeQuantize, if nothing else reads it."""
    output = quantised.output(0)
    while len(_readers(output)) == 1:
        node = next(iter(_readers(output))).get_node()
        found = _restored(node)
        if found is not None:
            return found
        if node.get_type_name() not in ("Convert", "Subtract"):
            return None
        output = node.output(0)
    return None


def _restored(node: Any) -> _Restored | None:
    """Return the parts of a restoration that ends with a node: (float(integers) - 0) · scale."""
    if node.get_type_name() != "Multiply" or _constant(node.input_value(1)) is None:
        return None
    inner = node.input_value(0).get_node()
    if inner.get_type_name() == "Subtract":
        zero = _constant(inner.input_value(1))
        if zero is None or zero.any():
            return None
        inner = inner.input_value(0).get_node()
    if inner.get_type_name() != "Convert" or _type_of(inner.input_value(0)) not in ("i8", "u8"):
        return None
    return _Restored(inner.input_value(0), node.input_value(1), node)


def _leaves(node: Any) -> Iterator[_Leaf]:
    """Yield the inputs of the arithmetic before a node, each once."""
    seen, waiting = set(), [node]
    while waiting:
        reader = waiting.pop()
        for place, value in enumerate(reader.input_values()):
            maker = value.get_node()
            if maker.get_type_name() not in ARITHMETIC or _restored(maker) is not None:
                yield _Leaf(reader, place, maker)
            elif maker.get_friendly_name() not in seen:
                seen.add(maker.get_friendly_name())
                waiting.append(maker)


def _is_switch(node: Any) -> bool:
    return node.get_type_name() == "Convert" and _type_of(node.input_value(0)) == "boolean"


def _unpooled(maps: list[_Leaf]) -> _Restored | None:
    """Return the uint8 values behind a map, which may be cropped, if it is the only one."""
    names = {leaf.maker.get_friendly_name() for leaf in maps}
    if len(names) != 1:
        return None
    maker = maps[0].maker
    if maker.get_type_name() == "Slice":
        if len(_readers(maker.output(0))) != len(maps):
            return None
        maker = maker.input_value(0).get_node()
    found = _restored(maker)
    return found if found is not None and _type_of(found.integers) == "u8" else None


def _readers(output: Any) -> Any:
    return output.get_target_inputs()


def _constant(output: Any) -> Any:
    """Return the values of a constant, which may be converted; None for anything else."""
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(_constant(one), _constant(other)))


def _type_of(output: Any) -> str:
    name: str = output.get_element_type().get_type_name()
    return name
