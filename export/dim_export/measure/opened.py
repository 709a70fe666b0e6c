"""Open an artefact for measurement, with the name and version of the engine that runs it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dim.contract import Precision
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import BackendName, open_backend
from dim_runtime.errors import BackendError

DISTRIBUTIONS: dict[BackendName, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
}
"""Names of the distributions that contain an engine."""


class OpenedArtefact(NamedTuple):
    """An artefact with the back end that runs it.

    Attributes:
        path: file of the artefact.
        backend: the back end; the caller that opened it closes it.
        name: name of the back end.
        device: "cpu", "cuda" or "cuda:N".
        precision: number format of the computation: the artefact's, or the requested lower one.
        threads: threads of one operator; None for the engine's choice.
    """

    path: Path
    backend: Backend
    name: BackendName
    device: str
    precision: Precision
    threads: int | None

    @property
    def description(self) -> str:
        """Name and version of the engine."""
        return f"{self.name} {engine_version(self.name)}".strip()


def open_artefact(
    path: Path,
    *,
    backend: BackendName | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    threads: int | None = None,
) -> OpenedArtefact:
    """Open an artefact for measurement.

    Args:
        path: an ``.onnx`` artefact or an ``.engine`` file.
        backend: None takes the runtime's default, except for bf16 files on the CPU: ONNX Runtime has no
            kernels for these, so OpenVINO runs them.
        device: "cpu", "cuda" or "cuda:N".
        precision: a lower precision, if the back end supports it; None for the artefact's.
        threads: threads of one operator; None for the engine's choice.

    Raises:
        ArtefactError, BackendError, DeviceError, MissingExtraError: as in :func:`open_backend`.
    """
    chosen = backend or _for_bf16(path, device)
    opened = open_backend(path, backend=chosen, device=device, precision=precision, threads=threads)
    metadata = opened.metadata
    name: BackendName = chosen or (metadata.engine.builder if metadata.engine else "onnxruntime")
    return OpenedArtefact(path, opened, name, device, precision or metadata.precision, threads)


def engine_version(name: BackendName) -> str:
    """Return the installed version of an engine; empty if its package cannot be found."""
    for distribution in DISTRIBUTIONS[name]:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""


def _for_bf16(path: Path, device: str) -> BackendName | None:
    if path.suffix != ".onnx" or device != "cpu" or read_metadata(path).precision != "bf16":
        return None
    if find_spec("openvino") is None:
        raise BackendError(
            f"cannot measure {path.name} here",
            got="a bf16 artefact without OpenVINO",
            expected="OpenVINO",
            why="ONNX Runtime's CPU provider has no bf16 kernels",
            fix='pip install "dim-matting[openvino]"; or dim-export onnx --no-verify, unmeasured',
        )
    return "openvino"
