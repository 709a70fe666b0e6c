"""What is inside an ONNX artefact, read without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from pydantic import BaseModel, ConfigDict

from dim.contract import ArtefactMetadata
from dim_runtime.errors import ArtefactError
from dim_runtime.onnx_file import read_metadata


class TensorInfo(BaseModel):
    """Name, dtype and axes of an input or output; free axes by name."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {', '.join(map(str, self.shape))}"


class Inspection(BaseModel):
    """An artefact taken apart."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int
    opset: int
    ir_version: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: dict[str, int]
    """How many nodes of each operator, the most frequent first."""
    metadata: ArtefactMetadata


def inspect(path: Path) -> Inspection:
    """Read an artefact.

    Raises:
        ArtefactError: no such file, no ONNX, cut off, or not an artefact of this toolkit.
        ContractError: its metadata cannot be read.
    """
    metadata = read_metadata(path)
    model = _parse(path)
    operators = Counter(_qualified(node) for node in model.graph.node)
    return Inspection(
        path=str(path),
        bytes=path.stat().st_size,
        opset=next((entry.version for entry in model.opset_import if not entry.domain), 0),
        ir_version=model.ir_version,
        inputs=tuple(map(_tensor, model.graph.input)),
        outputs=tuple(map(_tensor, model.graph.output)),
        nodes=len(model.graph.node),
        operators=dict(operators.most_common()),
        metadata=metadata,
    )


def _parse(path: Path) -> Any:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own class of errors differs between its releases
        raise ArtefactError(
            f"cannot read the model {path}",
            got=f"{path.stat().st_size} bytes that are not an ONNX model",
            why=str(error),
            fix="copy the file again, or make it: dim-export onnx CHECKPOINT -o MODEL.onnx",
        ) from error


def _tensor(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return TensorInfo(
        name=value.name, dtype=onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape=axes
    )


def _qualified(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)
