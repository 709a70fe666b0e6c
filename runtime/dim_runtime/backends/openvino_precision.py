"""The arithmetic of OpenVINO's graphs: chosen by precision, and verified in the compiled graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dim.contract import ArtefactMetadata, Precision
from dim_runtime.errors import BackendError

CONVOLUTIONS: dict[Precision, frozenset[str]] = {
    "fp32": frozenset({"f32"}),
    "fp16": frozenset({"f16", "f32"}),
    "bf16": frozenset({"bf16"}),
    "int8": frozenset({"u8", "i8"}),
}
"""Input types of convolutions, in OpenVINO's names, that a precision allows. In mixed graphs (int8 with its
first and last layers in float) some may be wider, none narrower."""


class Arithmetic(NamedTuple):
    """The arithmetic of a compiled graph.

    Attributes:
        precision: of the convolutions.
        lowered: whether float32 of the artefact is computed in bf16.
    """

    precision: Precision
    lowered: bool

    @property
    def value_size(self) -> int:
        """Bytes of a value of a feature map."""
        return 2 if self.lowered or self.precision == "bf16" else 4


def chosen_arithmetic(path: Path, metadata: ArtefactMetadata, precision: Precision | None) -> Arithmetic:
    """Return the arithmetic: the artefact's own, or bf16 in place of its float32.

    Raises:
        BackendError: another precision.
    """
    if precision in (None, metadata.precision):
        return Arithmetic(metadata.precision, lowered=False)
    if precision == "bf16" and metadata.precision in ("fp32", "int8"):
        return Arithmetic("bf16" if metadata.precision == "fp32" else "int8", lowered=True)
    raise BackendError(
        f"cannot run {path} in {precision}",
        got=f"an artefact in {metadata.precision}",
        why="OpenVINO lowers the float32 of fp32 and int8 artefacts to bf16, and changes nothing else",
        fix=f"dim-export onnx CHECKPOINT -o MODEL.onnx --precision {precision}",
    )


def require_arithmetic(path: Path, compiled: Any, arithmetic: Arithmetic) -> None:
    """Raise BackendError if convolutions of the compiled graph compute in another arithmetic."""
    found = set(_convolution_types(compiled))
    allowed = CONVOLUTIONS[arithmetic.precision]
    rest = {"bf16"} if arithmetic.lowered else {"f32"}
    wider = rest if arithmetic.precision in ("bf16", "int8") else set()
    if found & allowed and found <= allowed | wider:
        return
    raise BackendError(
        f"cannot run {path} in {arithmetic.precision} with OpenVINO on this processor",
        got=f"convolutions in {', '.join(sorted(found)) or 'no known type'}",
        expected=", ".join(sorted(allowed | wider)),
        why="OpenVINO chose another arithmetic; the processor may lack this one",
        fix="an fp32 artefact without precision= (--precision), which runs everywhere",
    )


def _convolution_types(compiled: Any) -> list[str]:
    nodes = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    return [
        node["runtimePrecision"].astype(str)
        for node in nodes
        if node["layerType"].astype(str) == "Convolution"
    ]
