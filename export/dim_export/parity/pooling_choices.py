"""Read from an ONNX artefact which value of each 2×2 pooling window it takes for the maximum.

The comparisons of the graph become outputs of a copy in memory. So these are the choices that the graph
unpools by, wrongly broken ties included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dim.arrays import UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP

Names = tuple[str, str, str]
"""Outputs of one pool: the maximum is in the top row; left in the top row; left in the bottom row."""

POOLS = 5
_COMPARISONS = ("GreaterOrEqual", "Greater", "Less", "LessOrEqual")
_TRANSPARENT = ("Cast", "QuantizeLinear", "DequantizeLinear", "Identity")
"""Operators that change the format of a value, not the value."""


class SwitchProbe:
    """An artefact whose pooling choices are outputs, in ONNX Runtime on the CPU.

    Args:
        path: an ``.onnx`` artefact.
        threads: threads of one operator; None leaves the choice to the engine.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        model = onnx.load(path)
        self._pools = find_switches(model.graph)
        names = [name for pool in self._pools for name in pool]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, None) for name in names
        )
        self._names = names
        self._session = _session(model.SerializeToString(), threads) if self.works else None

    @property
    def works(self) -> bool:
        """Whether all five pools were found in the graph."""
        return len(self._pools) == POOLS

    def choices(self, image: UInt8, trimap: UInt8) -> tuple[UInt8, ...]:
        """Return the choices of one batch, as :attr:`dim_export.graph.torch_backend.Watched.choices`.

        Args:
            image: uint8 N, H, W, 3 RGB.
            trimap: uint8 N, H, W. H and W are multiples of 32.
        """
        assert self._session is not None, "the pools of this graph were not found: see works"
        found = self._session.run(self._names, {INPUT_IMAGE: image, INPUT_TRIMAP: trimap})
        return tuple(_place(*found[start : start + 3]) for start in range(0, len(found), 3))


def count_different(reference: Sequence[UInt8], found: Sequence[UInt8]) -> int:
    """Return the number of windows, over all pools and channels, with different choices."""
    return sum(int(np.count_nonzero(a != b)) for a, b in zip(reference, found, strict=True))


def find_switches(graph: Any) -> list[Names]:
    """Return the names of the three comparisons of every pool, in the order of the graph.

    A pool splits its windows into four planes. It compares the first with the second, the third with the
    fourth, and the larger of the first pair with the larger of the second.
    """
    producers = {output: node for node in graph.node for output in node.output}
    # Each comparison is known by the planes that it compares, because names and order may have changed.
    comparisons = _comparisons_by_planes(graph, producers)
    found = []
    for node in graph.node:
        # The last maximum of a pool has two inputs, each of which is the maximum of two planes.
        pairs = [_planes_of(name, producers) for name in node.input] if node.op_type == "Max" else []
        if [len(pair) for pair in pairs] == [2, 2]:
            # Its three comparisons look at all four planes, at the first pair and at the second.
            names = [comparisons.get(planes) for planes in (pairs[0] | pairs[1], *pairs)]
            if all(names):
                found.append((str(names[0]), str(names[1]), str(names[2])))
    return found


def _comparisons_by_planes(graph: Any, producers: dict[str, Any]) -> dict[frozenset[str], str]:
    """Return the outputs of comparisons by the names of the planes that they compare."""
    return {_planes(node, producers): node.output[0] for node in graph.node if node.op_type in _COMPARISONS}


def _planes(node: Any, producers: dict[str, Any]) -> frozenset[str]:
    """Return the planes that a node is computed from, through Max and transparent operators."""
    return frozenset().union(*(_planes_of(name, producers) for name in node.input))


def _planes_of(name: str, producers: dict[str, Any]) -> frozenset[str]:
    producer = producers.get(name)
    if producer is None:
        return frozenset()
    if producer.op_type in ("Split", "Slice"):
        return frozenset([name])
    return _planes(producer, producers) if producer.op_type in (*_TRANSPARENT, "Max") else frozenset()


def _place(top_row: Any, left_in_top: Any, left_in_bottom: Any) -> UInt8:
    right_in_top, right_in_bottom = (~left_in_top).view(np.uint8), (~left_in_bottom).view(np.uint8)
    place: UInt8 = np.where(top_row, right_in_top, np.uint8(2) + right_in_bottom)
    return place


def _session(model: bytes, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
