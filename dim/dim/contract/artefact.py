"""The artefact's contract: its tensors, and the JSON document that describes the network inside.

An exported graph carries the document under the metadata key :data:`METADATA_KEY`. The runtime needs nothing
else. The tensors of an artefact:

======  ========  =======  ============  ====================================================
 way     name      dtype    shape         meaning
======  ========  =======  ============  ====================================================
 in      image     uint8    N, H, W, 3    RGB, 0-255
 in      trimap    uint8    N, H, W       0 background, 255 foreground, anything else unknown
 out     alpha     float32  N, H, W       0-1; exactly 0 / 1 where the trimap is known
======  ========  =======  ============  ====================================================

H and W are multiples of :data:`~dim.contract.STRIDE`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, ValidationError

from dim.arrays import WindowShape
from dim.contract.config import STRIDE, NetworkConfig
from dim.errors import DimError
from dim.frozen_model import FrozenModel

METADATA_KEY = "dim"
"""Key of the document in the metadata of an ONNX file, and in the header of our safetensors files."""
SCHEMA_VERSION = 1
"""Version of the document that this release writes; documents of a later version are refused."""

INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA = "image", "trimap", "alpha"
REFINED, TRUST = "refined", "trust"
"""Names of the values, float32 N, 1, H, W in [0, 1], after which propagation begins: see
:attr:`ArtefactMetadata.phases`."""

Precision = Literal["fp32", "fp16", "bf16", "int8"]
EngineBuilder = Literal["tensorrt", "tensorrt-rtx"]


class ContractError(DimError):
    """The metadata document is missing, unreadable or of a later version."""


class QuantisationInfo(FrozenModel):
    """Quantisation of an int8 artefact.

    Attributes:
        method: how the ranges of the activations were chosen.
        calibration: name of the folder of pairs, or "built-in".
        windows: number of windows that calibration ran.
        keep_float: names of the convolutions that stayed in float32.
    """

    method: str
    calibration: str
    windows: int
    keep_float: tuple[str, ...]


class ShapeProfile(FrozenModel, populate_by_name=True):
    """Optimisation profile of a TensorRT engine: the window shapes N, H, W that it accepts.

    Attributes:
        min: smallest shape, on every axis; "least" in files of earlier releases.
        opt: shape that the kernels are chosen for; once "tuned".
        max: largest shape, on every axis; once "most".
    """

    min: WindowShape = Field(validation_alias=AliasChoices("min", "least"))
    opt: WindowShape = Field(validation_alias=AliasChoices("opt", "tuned"))
    max: WindowShape = Field(validation_alias=AliasChoices("max", "most"))

    def admits(self, shape: WindowShape) -> bool:
        """Return whether a batch of windows of this shape lies between min and max, on every axis."""
        sides = zip(self.min, shape, self.max, strict=True)
        return all(low <= side <= high for low, side, high in sides)


class EngineInfo(FrozenModel):
    """Build data of a TensorRT engine: the section that only the document of ``.engine`` files has."""

    builder: EngineBuilder
    version: str
    """Version of the builder's package, which is also TensorRT's."""
    compute_capabilities: tuple[str, ...]
    """GPUs that it was built for, such as "8.6"; empty: 8.6, 8.9, 12.0, the default of TensorRT-RTX."""
    platform: str
    """Operating system and machine that built it, such as "Linux x86_64"."""
    profile: ShapeProfile | None = None
    """None where the shape is frozen."""
    hardware_compatible: bool = False
    """Runs on GPUs of compute capability 8.0 and later, not only on the kind that built it (TensorRT)."""
    version_compatible: bool = False
    """Runs in later releases too (TensorRT)."""
    workspace_bytes: int | None = None
    """Limit of the builder's scratch memory on the GPU; None for the builder's default."""
    layers: dict[str, int] = Field(default_factory=dict)
    """Number of layers of each kind in the engine, as the builder reports it; empty without a report."""
    convolutions: dict[str, int] = Field(default_factory=dict)
    """Number of convolutions that compute in each precision."""
    precision_read_from: Literal["engine", "network"]
    """Source of ``convolutions``: the builder's report of the engine, or the strongly typed network."""
    source_sha256: str
    """SHA-256 of the ONNX file."""
    plan_bytes: int = Field(ge=0)
    plan_sha256: str


class ArtefactMetadata(FrozenModel):
    """The JSON document inside every exported model."""

    schema_version: int = SCHEMA_VERSION
    network: NetworkConfig
    precision: Precision
    stride: int = STRIDE
    context: int = Field(ge=0)
    """Pixels around a tile with which it equals the whole image; see :func:`dim.contract.exact_context`."""
    colour_order: Literal["RGB"] = "RGB"
    trimap_encoding: str = "0 background, 255 foreground, anything else unknown"
    static_shape: WindowShape | None = None
    """N, H, W of a graph with a frozen shape; None where all three are dynamic."""
    crops: bool = False
    """Whether margins can be dropped on the way to the output: the graph has the initialisers of
    :mod:`dim.contract.cropping`."""
    phases: bool = False
    """Whether the graph can be cut in two at the values :data:`REFINED` and :data:`TRUST`: everything up to
    them, and their propagation, which reads the image and the trimap beside them."""
    multiply_adds_per_pixel: int
    parameters: int
    checkpoint_sha256: str
    provenance: dict[str, str] = Field(default_factory=dict)
    """Provenance that the checkpoint states: data, seed, scores, licence."""
    versions: dict[str, str]
    oldest_readers: dict[str, str]
    """Oldest releases of the engines that read this opset, e.g. {"onnxruntime": "1.14"}."""
    command: str
    """The command that made the file."""
    quantisation: QuantisationInfo | None = None
    """None unless the precision is int8."""
    engine: EngineInfo | None = None
    """None in ONNX files."""

    def to_json(self) -> str:
        """Return the document as JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, *, source: str) -> ArtefactMetadata:
        """Read the document.

        Args:
            text: JSON.
            source: name of the file in errors.

        Raises:
            ContractError: not a document of this schema, or one of a later version.
        """
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(
                f"cannot read the metadata of {source}",
                why="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()),
                fix="export the checkpoint again: dim-export onnx CHECKPOINT -o MODEL.onnx",
            ) from error
        if found.schema_version > SCHEMA_VERSION:
            raise ContractError(
                f"cannot use {source}: it was made by a newer release",
                got=f"metadata schema {found.schema_version}",
                expected=f"at most {SCHEMA_VERSION}",
                fix="pip install -U dim-matting",
            )
        return found
