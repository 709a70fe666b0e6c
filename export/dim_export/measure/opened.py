"""Opening an artefact for measurement, and knowing by name what runs it."""

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
"""Names under which an engine is installed."""


class OpenedArtefact(NamedTuple):
    """An opened artefact.

    Attributes:
        path: its file.
        backend: what runs it; the caller that opened it closes it.
        name: of the back end.
        device: "cpu", "cuda" or "cuda:N".
        precision: in which it computes: the artefact's, or the lower one that was asked for.
        threads: of one operator; None for the engine's own choice.
    """

    path: Path
    backend: Backend
    name: BackendName
    device: str
    precision: Precision
    threads: int | None

    @property
    def description(self) -> str:
        """Name and version."""
        return f"{self.name} {engine_version(self.name)}".strip()


def open_engine(
    path: Path,
    *,
    backend: BackendName | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    threads: int | None = None,
) -> OpenedArtefact:
    """Open an artefact with the back end that was asked for, or with the one that measures it.

    That is the runtime's own choice, but for bf16 files on the CPU, which ONNX Runtime refuses: OpenVINO.

    Raises:
        ArtefactError, BackendError, DeviceError, MissingExtraError: as :func:`open_backend` raises them.
    """
    chosen = backend or _for_bf16(path, device)
    opened = open_backend(path, backend=chosen, device=device, precision=precision, threads=threads)
    engine = opened.metadata.engine
    name: BackendName = chosen or (engine.builder if engine else "onnxruntime")
    return OpenedArtefact(path, opened, name, device, precision or opened.metadata.precision, threads)


def engine_version(name: BackendName) -> str:
    """The installed version of an engine; empty if the package cannot be found."""
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
            got="a bf16 artefact, and OpenVINO is not installed",
            expected="OpenVINO",
            why="ONNX Runtime's CPU provider has no bf16 kernels",
            fix='pip install "dim-matting[openvino]"; dim-export onnx --no-verify writes the file unmeasured',
        )
    return "openvino"
