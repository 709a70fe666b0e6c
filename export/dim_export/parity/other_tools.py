"""Compare an artefact with the same artefact after other tools have rewritten it, on one small window.

Users optimise artefacts (onnxslim) and convert them (OpenVINO). The rewritten file must keep the alpha. Both
sides run in one engine, so that engines which round differently do not count. A tool whose package is not
installed is skipped, with the reason in the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dim import trimap as trimaps
from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata
from dim.frozen_model import FrozenModel
from dim_export.measure.opened import OpenedArtefact
from dim_export.parity.comparison import Difference, compare
from dim_export.parity.gates import Measure
from dim_runtime.backends.open import open_backend
from dim_runtime.backends.openvino_graph import process_core
from dim_runtime.errors import ChangedGraphWarning
from dim_runtime.images.samples import lemur

if TYPE_CHECKING:
    import onnx

_WINDOW = slice(64, 224), slice(192, 384)
"""Rows and columns of the shipped photograph that are compared, pixels: hair, and all three trimap values."""
_LONGEST_REASON = 200
"""Most characters of a tool's error in the report."""


class ToolResult(FrozenModel):
    """An artefact after one tool has rewritten it, compared with the artefact as it is."""

    tool: str
    """``onnxslim``, or ``OpenVINO fp16``: ``openvino.save_model`` with its defaults."""
    version: str = ""
    """Version of the tool; empty if it is not installed."""
    measure: Measure
    """The measure by which a gate judges the rewriting."""
    height: int = 0
    width: int = 0
    """Size of the compared window, pixels; 0 if nothing was compared."""
    difference: Difference | None = None
    """Differences over the unknown pixels; None if nothing was compared."""
    changed_known: int = 0
    """Known pixels whose alpha the rewriting changes."""
    skipped: str = ""
    """The reason why nothing was compared; empty if something was."""
    error: str = ""
    """The error with which the tool or the engine refused the file; it fails the gate."""

    @property
    def found(self) -> float | None:
        """The mean difference of an unknown pixel for the gate: None if skipped, NaN after an error."""
        if self.difference is None:
            return None if self.skipped else float("nan")
        return self.difference.mean_difference


class _Window(NamedTuple):
    """Image, uint8 N, H, W, 3 RGB, and trimap, uint8 N, H, W."""

    image: UInt8
    trimap: UInt8


class _Tool(NamedTuple):
    """A rewriting: name, package that it needs, measure, and the function that runs both sides."""

    name: str
    package: str
    measure: Measure
    alphas: Callable[[OpenedArtefact, _Window, Path], tuple[Floating, Floating]]


def after_other_tools(artefact: OpenedArtefact) -> tuple[ToolResult, ...]:
    """Rewrite an artefact with each tool, and compare one window before and after.

    Args:
        artefact: an opened artefact. All tools skip an engine, which only its builder reads.
    """
    return tuple(_result(tool, artefact) for tool in _TOOLS)


def most_outputs(model: onnx.ModelProto) -> int:
    """Return the largest number of outputs of one node."""
    return max((len(node.output) for node in model.graph.node), default=0)


def _result(tool: _Tool, artefact: OpenedArtefact) -> ToolResult:
    if artefact.path.suffix != ".onnx":
        return _skipped(tool, f"{artefact.path.name} is no ONNX file")
    if find_spec(tool.package) is None:
        return _skipped(tool, f"{tool.package} is not installed: pip install {tool.package}")
    window = _window(artefact.backend.metadata)
    about = {"tool": tool.name, "version": version(tool.package), "measure": tool.measure}
    try:
        with TemporaryDirectory() as folder:
            before, after = tool.alphas(artefact, window, Path(folder))
    except Exception as error:
        # Tools raise all kinds. Their refusal of the artefact is a finding, and no reason to lose the report.
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return ToolResult(**about, error=text[:_LONGEST_REASON])
    trimap = window.trimap[0]
    known = ~trimaps.unknown(trimap)
    return ToolResult(
        **about,
        height=trimap.shape[0],
        width=trimap.shape[1],
        difference=compare(before[0], after[0], trimap),
        changed_known=int((after[0][known] != before[0][known]).sum()),
    )


def _skipped(tool: _Tool, reason: str) -> ToolResult:
    return ToolResult(tool=tool.name, measure=tool.measure, skipped=reason)


def _window(metadata: ArtefactMetadata) -> _Window:
    """Return a part of the shipped photograph, widened by reflection to a frozen shape."""
    image, trimap = (plane[_WINDOW] for plane in lemur())
    if metadata.static_shape is None:
        return _Window(image[None], trimap[None])
    batch, height, width = metadata.static_shape
    missing = [(0, max(0, side - has)) for side, has in zip((height, width), trimap.shape, strict=True)]
    wide = np.pad(trimap, missing, "symmetric")[:height, :width]
    colours = np.pad(image, [*missing, (0, 0)], "symmetric")[:height, :width]
    return _Window(np.stack([colours] * batch), np.stack([wide] * batch))


def _slimmed(artefact: OpenedArtefact, window: _Window, folder: Path) -> tuple[Floating, Floating]:
    """Return the alphas of the artefact and of what onnxslim makes of it, in the artefact's back end."""
    import onnx
    import onnxslim

    path = folder / "slim.onnx"
    onnx.save(onnxslim.slim(str(artefact.path)), path)
    lowered = artefact.precision != artefact.backend.metadata.precision
    with warnings.catch_warnings():
        # The rewriting is intended here.
        warnings.simplefilter("ignore", ChangedGraphWarning)
        slim = open_backend(
            path,
            backend=artefact.name,
            device=artefact.device,
            precision=artefact.precision if lowered else None,
            threads=artefact.threads,
        )
    try:
        return artefact.backend.run(*window), slim.run(*window)
    finally:
        slim.close()


def _half_weights(artefact: OpenedArtefact, window: _Window, folder: Path) -> tuple[Floating, Floating]:
    """Return the alphas before and after ``openvino.save_model`` with its defaults: weights in fp16.

    OpenVINO runs both in float32, so that only the rounding of the constants differs.
    """
    import openvino

    core = process_core()
    openvino.save_model(core.read_model(artefact.path), folder / "half.xml")
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if artefact.threads is not None:
        options["INFERENCE_NUM_THREADS"] = artefact.threads
    before, after = (
        core.compile_model(path, "CPU", options)(dict(zip(("image", "trimap"), window, strict=True)))["alpha"]
        for path in (artefact.path, folder / "half.xml")
    )
    return before, after


_TOOLS = (
    _Tool("onnxslim", "onnxslim", Measure.SLIMMED, _slimmed),
    _Tool("OpenVINO fp16", "openvino", Measure.HALF_WEIGHTS, _half_weights),
)
