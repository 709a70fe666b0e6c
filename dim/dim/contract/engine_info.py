"""What a TensorRT engine file says of itself beyond what an ONNX artefact says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dim.arrays import WindowShape
from dim.frozen_model import FrozenModel

EngineBuilder = Literal["tensorrt", "tensorrt-rtx"]


class ShapeProfile(FrozenModel):
    """The shapes N, H, W that an engine takes: the least, the one that it is tuned for, the most."""

    least: WindowShape
    tuned: WindowShape
    most: WindowShape

    def admits(self, shape: WindowShape) -> bool:
        """Whether a batch of windows of this shape lies between the least and the most, on every axis."""
        sides = zip(self.least, shape, self.most, strict=True)
        return all(low <= side <= high for low, side, high in sides)


class EngineInfo(FrozenModel):
    """What a TensorRT engine is bound to: the section that only the document of ``.engine`` files has."""

    builder: EngineBuilder
    version: str
    """Of the builder's package, which is also TensorRT's own."""
    compute_capabilities: tuple[str, ...]
    """Of the GPUs that it was built for, such as "8.6"; empty: 8.0 and later, TensorRT-RTX's default."""
    platform: str
    """Operating system and machine that built it, such as "Linux x86_64"."""
    profile: ShapeProfile | None = None
    """None where the shape is frozen."""
    hardware_compatible: bool = False
    """Runs on GPUs of compute capability 8.0 and later, not only on the kind that built it (TensorRT)."""
    version_compatible: bool = False
    """Runs in later releases too (TensorRT)."""
    workspace_bytes: int | None = None
    """Limit of the builder's scratch memory on the GPU; None for its own."""
    layers: dict[str, int] = Field(default_factory=dict)
    """How many layers of each kind the builder reports of the finished engine; empty if it reported none."""
    convolutions: dict[str, int] = Field(default_factory=dict)
    """How many convolutions compute in each precision."""
    precision_read_from: Literal["engine", "network"]
    """Where the count of convolutions comes from: the builder's report of the engine, or the strongly typed
    network that it was given."""
    source_sha256: str
    """Of the ONNX file."""
    plan_bytes: int = Field(ge=0)
    plan_sha256: str
