"""Which back end runs a model: said by the user, or by the file's suffix; never guessed beyond that."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.errors import BackendError

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


def open_backend(
    path: Path,
    *,
    backend: BackendName | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    threads: int | None = None,
) -> Backend:
    """Load an artefact.

    Args:
        path: the ``.onnx`` file.
        backend: None takes ONNX Runtime for ``.onnx``.
        device: "cpu", "cuda" or "cuda:N".
        precision: None for the artefact's own; another is an error: ONNX Runtime lowers none.
        threads: threads of one operator; None leaves the choice to the engine.

    Raises:
        InputError: an option that does not exist.
        BackendError, ArtefactError, DeviceError, MissingExtraError: see :class:`OnnxRuntimeBackend`.
    """
    if threads is not None and threads < 1:
        raise InputError("cannot use this number of threads", got=threads, expected="1 or more, or None")
    _require_available(path, backend)
    opened = OnnxRuntimeBackend(path, device=device, threads=threads)
    if precision not in (None, opened.metadata.precision):
        opened.close()
        raise BackendError(
            f"cannot run {path} in {precision}",
            got=f"an artefact in {opened.metadata.precision}",
            why="ONNX Runtime computes in the precision that the graph has",
            fix=f"dim-export onnx CHECKPOINT -o MODEL.onnx --precision {precision}",
        )
    return opened


def _require_available(path: Path, backend: BackendName | None) -> None:
    if backend is not None and backend not in get_args(BackendName):
        raise InputError(
            "there is no such back end", got=repr(backend), expected=", ".join(get_args(BackendName))
        )
    if backend not in (None, "onnxruntime"):
        raise BackendError(
            f"cannot use the back end {backend}",
            why="this release has ONNX Runtime only",
            fix='backend="onnxruntime"',
        )
    if path.suffix == ".engine":
        raise BackendError(
            f"cannot run {path}",
            got="a TensorRT engine",
            expected="an .onnx artefact",
            why="this release has ONNX Runtime only",
            fix="dim-export onnx CHECKPOINT -o MODEL.onnx",
        )
    if path.suffix != ".onnx":
        raise BackendError(
            f"cannot choose a back end for {path}", got=f"suffix {path.suffix!r}", expected=".onnx"
        )
