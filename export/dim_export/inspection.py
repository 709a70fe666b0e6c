"""Read the contents of an ONNX artefact, an engine file or a checkpoint without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, ArtefactMetadata, EngineInfo, NetworkConfig
from dim.contract.layers import multiply_adds_per_pixel
from dim.frozen_model import FrozenModel
from dim_runtime.artefacts.engine_compatibility import RTX_PORTABLE
from dim_runtime.artefacts.engine_file import read_header
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.errors import ArtefactError


class TensorInfo(FrozenModel):
    """Name, dtype and axes of an input or output; free axes by name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {', '.join(map(str, self.shape))}"


class Inspection(FrozenModel):
    """The contents of an artefact."""

    path: str
    bytes: int
    opset: int | None = None
    ir_version: int | None = None
    """Opset and IR version are those of ONNX files; engines have none."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    """Nodes of an ONNX graph, or layers of an engine as its builder reported them."""
    operators: dict[str, int]
    """Number of nodes of each operator, the most frequent first."""
    metadata: ArtefactMetadata

    @property
    def format(self) -> str:
        """Kind and version of the file, in words."""
        engine = self.metadata.engine
        if engine is None:
            return f"opset {self.opset}, IR {self.ir_version}"
        counts = ", ".join(f"{count} convolutions in {name}" for name, count in engine.convolutions.items())
        source = f"read from the {engine.precision_read_from}"
        return f"engine of {engine.builder} {engine.version}: {counts} ({source})"

    @property
    def readers(self) -> str:
        """Names and versions of the engines that run it, in words."""
        engine = self.metadata.engine
        if engine is None:
            oldest = self.metadata.oldest_readers.items()
            return ", ".join(f"{name} {version} or newer" for name, version in oldest)
        return _place(engine)


class CheckpointInspection(FrozenModel):
    """The contents of a checkpoint."""

    path: str
    bytes: int
    network: NetworkConfig
    parameters: int
    multiply_adds_per_pixel: int
    """Of the convolutions, for each pixel of an image whose sides are multiples of 32."""
    provenance: dict[str, str]


def inspect_checkpoint(path: Path) -> CheckpointInspection:
    """Read a checkpoint of any kind that :func:`dim.checkpoint.load` reads.

    Raises:
        CheckpointError: another file.
    """
    from dim import checkpoint

    contents = checkpoint.read(path)
    return CheckpointInspection(
        path=str(path),
        bytes=path.stat().st_size,
        network=contents.config,
        parameters=sum(tensor.numel() for tensor in checkpoint.load(path).parameters()),
        multiply_adds_per_pixel=multiply_adds_per_pixel(contents.config),
        provenance=contents.provenance,
    )


def inspect(path: Path) -> Inspection:
    """Read an artefact; files with the suffix ``.engine`` need neither ONNX nor TensorRT.

    Raises:
        ArtefactError: the file is missing, of another format, truncated, damaged, or not an artefact of this
            toolkit.
        ContractError: its metadata cannot be read.
    """
    return _engine(path) if path.suffix == ".engine" else _onnx(path)


def _onnx(path: Path) -> Inspection:
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


def _engine(path: Path) -> Inspection:
    metadata, engine, _ = read_header(path)
    shape: tuple[int | str, ...] = metadata.static_shape or ("N", "H", "W")
    return Inspection(
        path=str(path),
        bytes=path.stat().st_size,
        inputs=(
            TensorInfo(name=INPUT_IMAGE, dtype="uint8", shape=(*shape, 3)),
            TensorInfo(name=INPUT_TRIMAP, dtype="uint8", shape=shape),
        ),
        outputs=(TensorInfo(name=OUTPUT_ALPHA, dtype="float", shape=shape),),
        nodes=sum(engine.layers.values()),
        operators=engine.layers,
        metadata=metadata,
    )


def _place(engine: EngineInfo) -> str:
    """Return in words the release, GPUs and window shapes that an engine is bound to."""
    later = " or newer" if engine.version_compatible else ""
    listed = ", ".join(engine.compute_capabilities or RTX_PORTABLE)
    targets = "8.0 or later" if engine.hardware_compatible else listed
    profile = engine.profile
    shapes = f", windows from {profile.min} to {profile.max}" if profile else ""
    return f"{engine.builder} {engine.version}{later} on compute capability {targets}{shapes}"


def _parse(path: Path) -> Any:
    import onnx

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
    from onnx import TensorProto

    tensor = value.type.tensor_type
    axes = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return TensorInfo(name=value.name, dtype=TensorProto.DataType.Name(tensor.elem_type).lower(), shape=axes)


def _qualified(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)
