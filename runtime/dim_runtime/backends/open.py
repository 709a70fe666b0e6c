"""Find a model and choose its back end: the user names it, or the file's suffix decides, nothing else."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Literal, cast, get_args

from dim.contract import EngineBuilder, Precision
from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.errors import BackendError

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]

READERS: dict[str, tuple[BackendName, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".engine": ("tensorrt", "tensorrt-rtx"),
}
"""Suffixes of files and the back ends that read them; the first is taken for ``.onnx`` if none is named."""

MOST_THREADS = 1024
"""Threads that a user may request on a machine with fewer logical CPUs; each thread needs memory."""

SHIPPED_MODELS = ("dim-clean", "dim-clean-int8", "dim-compact")
"""Names of the artefacts in this package; the first is the embedded model, which is used without a name. The
second is the same network in int8: faster on CPUs, and nearly as exact."""

__all__ = ["SHIPPED_MODELS", "BackendName", "Precision", "default_model", "model_path", "open_backend"]


def default_model() -> Path:
    """Return the path of the embedded artefact."""
    return _shipped(SHIPPED_MODELS[0])


def model_path(model: object) -> Path:
    """Return an artefact's path: of the embedded one for None, of a shipped one for its name, or of a file.

    A file need not exist: opening it reports that. But a name without folder and suffix, which no
    artefact has, is most likely a misspelt name of a shipped model.

    Raises:
        InputError: neither a text nor a path, or a name of no model.
    """
    if model is None:
        return default_model()
    named = os.fspath(model) if isinstance(model, str | os.PathLike) else model
    if not isinstance(named, str):
        raise InputError(
            "cannot use this model",
            got=f"{named!r:.80} of type {type(named).__name__}",
            expected=f"a path, or one of {', '.join(SHIPPED_MODELS)}; None for the embedded model",
        )
    if named in SHIPPED_MODELS:
        return _shipped(named)
    path = Path(named)
    if path.name == named and not path.suffix and not path.exists():
        raise InputError(
            "cannot find this model",
            got=named,
            expected=f"an .onnx or .engine file, or one of {', '.join(SHIPPED_MODELS)}",
        )
    return path


def _shipped(name: str) -> Path:
    return Path(__file__).parents[1] / "models" / f"{name}.onnx"


def open_backend(
    path: Path,
    *,
    backend: BackendName | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    threads: int | None = None,
    cache: Path | None = None,
) -> Backend:
    """Load an artefact or an engine. An option is applied or refused, never replaced by another.

    Args:
        path: an ``.onnx`` artefact (ONNX Runtime, OpenVINO) or an ``.engine`` file (TensorRT, TensorRT-RTX).
        backend: None takes ONNX Runtime for ``.onnx``, and what built the engine for ``.engine``.
        device: "cpu" (ONNX Runtime, OpenVINO), "cuda" or "cuda:N" (ONNX Runtime, TensorRT).
        precision: None for the file's own. "bf16" lowers an fp32 artefact in OpenVINO; any other difference
            is an error.
        threads: threads of one operator, at most 1024 or the machine's logical CPUs if these are more; None
            leaves the choice to the engine.
        cache: folder for graphs that OpenVINO compiles; None for none.

    Raises:
        InputError: an option that does not exist, or does not apply.
        ArtefactError, BackendError, DeviceError, MissingExtraError: as the back end's class raises them.
    """
    _require_threads(threads)
    _require_reader(path, backend)
    if cache is not None and backend != "openvino":
        raise InputError(
            "cannot use a cache of compiled graphs with this back end",
            got=f"cache={str(cache)!r} with {backend or 'the usual back end of the file'}",
            expected='backend="openvino" (--backend openvino)',
            why="only graphs that OpenVINO compiled can be kept",
        )
    if path.suffix == ".engine":
        from dim_runtime.backends.tensorrt import open_engine

        builder = None if backend is None else cast("EngineBuilder", backend)
        return open_engine(path, builder=builder, device=device, precision=precision, threads=threads)
    if backend == "openvino":
        from dim_runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, device=device, precision=precision, threads=threads, cache=cache)
    from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, device=device, precision=precision, threads=threads)


def _require_threads(threads: object) -> None:
    """Require None or a whole number of threads that a machine can hold."""
    if threads is None:
        return
    most = max(MOST_THREADS, os.cpu_count() or 1)
    is_whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if not is_whole or not 1 <= int(cast("int", threads)) <= most:
        raise InputError(
            "cannot use this number of threads",
            got=repr(threads),
            expected=f"a whole number from 1 to {most}, or None",
        )


def _require_reader(path: Path, backend: BackendName | None) -> None:
    """Require a known back end and a known suffix, and that the back end reads such files."""
    if backend is not None and backend not in get_args(BackendName):
        raise InputError("unknown back end", got=repr(backend), expected=", ".join(get_args(BackendName)))
    if path.suffix not in READERS:
        raise BackendError(
            f"cannot choose a back end for {path}",
            got=f"suffix {path.suffix!r}",
            expected=" or ".join(READERS),
            fix="dim-export onnx CHECKPOINT -o MODEL.onnx",
        )
    if backend is not None and backend not in READERS[path.suffix]:
        raise _wrong_reader(path, backend)


def _wrong_reader(path: Path, backend: BackendName) -> BackendError:
    if path.suffix == ".onnx":
        fix = f"build an engine: dim-export trt {path.name} -o {path.stem}.engine --builder {backend}"
    else:
        fix = f"leave the back end out, or give the .onnx artefact that {path.name} was built from"
    return BackendError(
        f"cannot run {path} with the back end {backend}",
        got=f"a {path.suffix} file, which runs in {' and '.join(READERS[path.suffix])}",
        fix=fix,
    )
