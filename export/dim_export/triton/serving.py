"""Determine how Triton can serve an artefact: engine, device, batch and windows; refuse the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from dim.contract import STRIDE, ArtefactMetadata
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_runtime.artefacts.engine_file import read_header
from dim_runtime.artefacts.onnx_file import read_metadata

Device = Literal["cpu", "gpu"]
Engine = Literal["onnxruntime", "openvino", "tensorrt"]
Side = tuple[int, int]
"""Height and width of a window, pixels."""

DEFAULT_BATCH = 8


class Options(FrozenModel):
    """Options of a repository.

    Attributes:
        max_batch: largest batch that the server forms; None takes 8, or less if the artefact allows less.
        windows: height and width of fixed windows, pixels; empty takes the shapes of the artefact.
        instances: copies of a model that run at the same time.
        device: None takes "cpu" for ONNX files and "gpu" for engines.
        engine: None takes ONNX Runtime for ONNX files and TensorRT for engines.
        threads: threads of one instance on the CPU; None leaves the choice to the engine.
    """

    max_batch: int | None = Field(default=None, ge=1)
    windows: tuple[Side, ...] = ()
    instances: int = Field(default=1, ge=1)
    device: Device | None = None
    engine: Engine | None = None
    threads: int | None = Field(default=None, ge=1)


class ServedModel(FrozenModel):
    """One folder of a repository."""

    name: str
    source: str
    engine: Engine
    device: Device
    max_batch: int
    """Largest batch; 0 if the batch is frozen and the server must not join requests."""
    window: Side | None
    """Fixed height and width, pixels; None if the server takes any."""
    instances: int


class Serving(NamedTuple):
    """A served model, and the sources of its folder.

    Attributes:
        model: its folder.
        source: the artefact, an ``.onnx`` or ``.engine`` file.
        metadata: the artefact's metadata; a fixed window is recorded as its frozen shape.
        threads: threads of one instance on the CPU; None leaves the choice to the engine.
    """

    model: ServedModel
    source: Path
    metadata: ArtefactMetadata
    threads: int | None


def servings(sources: Sequence[Path], options: Options) -> list[Serving]:
    """Return one :class:`Serving` for each artefact and window.

    Raises:
        ArtefactError, ContractError: an artefact that cannot be read.
        InputError: options that do not fit an artefact, or two models of one name.
    """
    found = [serving for source in sources for serving in _of_source(source, options)]
    _require_distinct(found)
    return found


def _of_source(source: Path, options: Options) -> list[Serving]:
    metadata = _metadata(source)
    engine, device = _engine(source, metadata, options)
    windows = _windows(source, metadata, options, engine)
    return [_serving(source, metadata, options, engine, device, window) for window in windows]


def _serving(
    source: Path,
    metadata: ArtefactMetadata,
    options: Options,
    engine: Engine,
    device: Device,
    window: Side | None,
) -> Serving:
    max_batch = _max_batch(source, metadata, options, engine)
    _require_in_profile(source, metadata, max_batch, window)
    _require_room_for_context(source, metadata, window)
    suffix = f"_{window[0]}x{window[1]}" if window and options.windows else ""
    if window is not None and metadata.static_shape is None:
        metadata = metadata.model_copy(update={"static_shape": (1, *window)})
    model = ServedModel(
        name=re.sub(r"[^\w.-]", "_", source.stem) + suffix,
        source=source.name,
        engine=engine,
        device=device,
        max_batch=max_batch,
        window=window,
        instances=options.instances,
    )
    return Serving(model, source, metadata, options.threads)


def _metadata(source: Path) -> ArtefactMetadata:
    if source.suffix == ".engine":
        return read_header(source).metadata
    if source.suffix == ".onnx":
        return read_metadata(source)
    raise InputError(f"cannot serve {source}", got=f"suffix {source.suffix!r}", expected=".onnx or .engine")


def _engine(source: Path, metadata: ArtefactMetadata, options: Options) -> tuple[Engine, Device]:
    if metadata.engine is not None:
        _require_servable_plan(source, metadata, options)
        return "tensorrt", "gpu"
    engine = options.engine or "onnxruntime"
    device = options.device or "cpu"
    if engine == "tensorrt":
        raise InputError(
            f"cannot serve {source} with TensorRT",
            got="an ONNX file",
            expected="an .engine file",
            fix=f"dim-export trt {source} -o {source.with_suffix('.engine')}",
        )
    if engine == "openvino" and device == "gpu":
        raise InputError(
            f"cannot serve {source} with OpenVINO on a GPU", why="Triton's OpenVINO supports the CPU only"
        )
    if engine == "onnxruntime" and device == "cpu" and metadata.precision == "bf16":
        raise InputError(
            f"cannot serve {source} with ONNX Runtime on the CPU",
            got="a bf16 artefact",
            why="ONNX Runtime's CPU provider has no bf16 kernels",
            fix="--backend openvino, or an artefact in fp32 or int8",
        )
    _require_cpu_for_threads(source, options, device)
    return engine, device


def _require_servable_plan(source: Path, metadata: ArtefactMetadata, options: Options) -> None:
    assert metadata.engine is not None
    if metadata.engine.builder != "tensorrt":
        raise InputError(
            f"cannot serve {source} with Triton",
            got=f"an engine of {metadata.engine.builder}",
            expected="an engine of tensorrt",
            why="Triton's TensorRT back end reads no other",
            fix="dim-export trt MODEL.onnx -o MODEL.engine --builder tensorrt, or serve the ONNX file",
        )
    if options.device == "cpu" or options.engine not in (None, "tensorrt"):
        raise InputError(
            f"cannot serve {source} with these options",
            got=f"device {options.device}, backend {options.engine}",
            expected="a GPU and TensorRT",
            fix="leave --device and --backend out, or serve the ONNX file",
        )
    _require_cpu_for_threads(source, options, "gpu")


def _require_cpu_for_threads(source: Path, options: Options, device: Device) -> None:
    if device == "gpu" and options.threads is not None:
        raise InputError(
            f"cannot give {source} {options.threads} threads", why="threads are an option of the CPU"
        )


def _windows(
    source: Path, metadata: ArtefactMetadata, options: Options, engine: Engine
) -> Sequence[Side | None]:
    frozen = metadata.static_shape
    if frozen is not None and options.windows:
        raise InputError(
            f"cannot fix the windows of {source}",
            got=f"a shape frozen to N, H, W = {frozen}",
            fix="leave --windows out, or export without --shape",
        )
    for window in options.windows:
        if any(side < STRIDE or side % STRIDE for side in window):
            raise InputError(
                "cannot use these windows", got=f"{window[0]},{window[1]}", expected=f"multiples of {STRIDE}"
            )
    if frozen is not None:
        return [frozen[1:]]
    if engine == "openvino" and not options.windows:
        raise InputError(
            f"cannot serve {source} with OpenVINO",
            got="free shapes",
            expected="fixed windows",
            why="Triton's OpenVINO back end joins no requests and requires a fixed shape",
            fix="--windows 1024,1024",
        )
    return options.windows or [None]


def _max_batch(source: Path, metadata: ArtefactMetadata, options: Options, engine: Engine) -> int:
    most = _largest_batch(metadata, engine)
    if most is None:
        return options.max_batch or DEFAULT_BATCH
    if options.max_batch is not None and options.max_batch > max(most, 1):
        raise InputError(
            f"cannot join {options.max_batch} windows for {source}",
            got=f"--max-batch {options.max_batch}",
            expected=f"at most {max(most, 1)}",
            why=_why_batches_are_limited(metadata, engine),
            fix="leave --max-batch out",
        )
    return min(options.max_batch or DEFAULT_BATCH, most)


def _largest_batch(metadata: ArtefactMetadata, engine: Engine) -> int | None:
    """Return the largest batch: 0 if the server must not join requests, None without a limit."""
    if metadata.static_shape is not None or engine == "openvino":
        return 0
    profile = metadata.engine.profile if metadata.engine else None
    return profile.max[0] if profile else None


def _why_batches_are_limited(metadata: ArtefactMetadata, engine: Engine) -> str:
    if metadata.static_shape is not None:
        return f"its shape is frozen to N, H, W = {metadata.static_shape}"
    return "Triton's OpenVINO back end joins no requests" if engine == "openvino" else "the engine's profile"


def _require_in_profile(
    source: Path, metadata: ArtefactMetadata, max_batch: int, window: Side | None
) -> None:
    profile = metadata.engine.profile if metadata.engine else None
    if profile is None or window is None:
        return
    if not (profile.admits((1, *window)) and profile.admits((max_batch, *window))):
        raise InputError(
            f"cannot serve {source} with windows of {window[0]},{window[1]}",
            got=f"1 to {max_batch} windows at once",
            expected=f"N, H, W between {profile.min} and {profile.max}, the engine's profile",
            fix="other --windows, or build the engine for these",
        )


def _require_room_for_context(source: Path, metadata: ArtefactMetadata, window: Side | None) -> None:
    """Raise InputError for a fixed window in which no core fits between the context on both sides."""
    smallest = 2 * metadata.context + STRIDE
    if window is None or metadata.static_shape is not None or min(window) >= smallest:
        return
    height, width = (max(side, smallest) for side in window)
    raise InputError(
        f"cannot serve {source} with windows of {window[0]},{window[1]}",
        got=f"{min(window)} px",
        expected=f"at least {smallest} px on each side",
        why=f"exact tiling needs {metadata.context} px of context on both sides of what a window computes",
        fix=f"--windows {height},{width}",
    )


def _require_distinct(servings: Sequence[Serving]) -> None:
    counts = Counter(serving.model.name for serving in servings)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise InputError(
            "cannot serve two models under one name",
            got=", ".join(repeated),
            why="a model has the name of its file",
            fix="rename a file, or write two repositories",
        )
