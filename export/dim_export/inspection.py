"""What is inside an ONNX artefact, read without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from pydantic import BaseModel, ConfigDict

from dim.contract import METADATA_KEY, ArtefactMetadata
from dim_runtime.errors import ArtefactError


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
        ArtefactError: no such file, no ONNX, truncated, or not an artefact of this toolkit.
        ContractError: its metadata cannot be read.
    """
    model = _parse(path)
    metadata = ArtefactMetadata.from_json(_document(model, path), source=str(path))
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
    if not path.is_file():
        raise ArtefactError(f"cannot read the model {path}", got="no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own class of errors differs between its releases
        raise _no_onnx(path, str(error)) from error
    # Protobuf takes many a stranger for a message of fields that it does not know.
    if not model.graph.node:
        raise _no_onnx(path, "there is no graph in it")
    return model


def _no_onnx(path: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"cannot read the model {path}",
        got=f"{path.stat().st_size} bytes that are not an ONNX model, or a truncated one",
        why=why,
        fix="copy the file again, or make it: dim-export onnx CHECKPOINT -o MODEL.onnx",
    )


def _document(model: Any, path: Path) -> str:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return str(entry.value)
    tensors = [str(_tensor(value)) for value in (*model.graph.input, *model.graph.output)]
    raise ArtefactError(
        f"cannot use {path}: it is not an artefact of this toolkit",
        got=f"an ONNX model of {len(model.graph.node)} nodes with {'; '.join(tensors)}",
        expected=f"an ONNX model with metadata under the key {METADATA_KEY!r}",
        fix="make one from its checkpoint: dim-export onnx CHECKPOINT -o MODEL.onnx",
    )


def _tensor(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return TensorInfo(
        name=value.name, dtype=onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape=axes
    )


def _qualified(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)
