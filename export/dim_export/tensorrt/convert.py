"""ONNX artefact -> engine file: a plan behind a header that says what it is and what it is bound to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import dim
from dim.arrays import WindowShape
from dim.contract import STRIDE, ArtefactMetadata, EngineBuilder, EngineInfo, ShapeProfile
from dim.errors import InputError
from dim.files import atomic_path
from dim_export.tensorrt.build import Built, EngineError, build_plan
from dim_export.tensorrt.builders import BuildOptions, choose_builder, require_applicable
from dim_runtime.artefacts.engine_compatibility import NAMES, this_platform
from dim_runtime.artefacts.engine_file import read_header, write_engine
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.cuda import Cuda, cuda_runtime

TILE = 1536
"""The runtime's own default: its windows have sides from 32 to this."""


def convert(
    source: Path,
    target: Path,
    *,
    builder: EngineBuilder | None = None,
    options: BuildOptions | None = None,
    command: str = "",
) -> ArtefactMetadata:
    """Build an engine file.

    Args:
        source: an ONNX artefact of this toolkit, of any precision.
        target: the engine file; an old one is replaced only when the new one is complete.
        builder: None takes the only one that is installed.
        options: None builds for windows of the runtime's default tile, or for the artefact's frozen shape.
        command: recorded in the header.

    Returns:
        What the header says, the engine section included.

    Raises:
        ArtefactError, ContractError: not an ONNX artefact of this toolkit.
        InputError: an option that the builder or the artefact does not have.
        MissingExtraError, BuilderError: no builder, or one that cannot start here.
        EngineError: the builder refused the graph, or computes in another precision than the artefact says.
    """
    metadata = read_metadata(source)
    options = options or BuildOptions(profile=None if metadata.static_shape else window_profile())
    _require_profile(source, metadata, options.profile)
    name, module = choose_builder(builder)
    require_applicable(name, options)
    content = source.read_bytes()
    built = build_plan(module, name, content, options)
    _require_precision(source, metadata, built, NAMES[name])
    info = _describe(name, module, options, built, hashlib.sha256(content).hexdigest())
    with atomic_path(target) as temporary:
        write_engine(temporary, _extended(metadata, info, command), built.plan)
        return read_header(temporary).metadata


def window_profile(tile: int = TILE, batch: int = 1) -> ShapeProfile:
    """The shapes of the runtime's windows.

    From the smallest window to a batch of squares; tuned for one square of ``tile`` pixels, which is where
    the runtime's planner spends most of its time on a large image.

    Raises:
        InputError: a tile that is no positive multiple of 32, or a batch below 1.
    """
    return checked_profile((1, STRIDE, STRIDE), (1, tile, tile), (batch, tile, tile))


def checked_profile(least: WindowShape, tuned: WindowShape, most: WindowShape) -> ShapeProfile:
    """A profile of three shapes N, H, W; InputError if they do not ascend or are not on the grid of 32."""
    for shape in (least, tuned, most):
        if shape[0] < 1 or any(side < STRIDE or side % STRIDE for side in shape[1:]):
            raise InputError(
                "cannot build an engine for this shape",
                got=f"N, H, W = {shape}",
                expected=f"N of 1 or more, H and W positive multiples of {STRIDE} pixels",
            )
    profile = ShapeProfile(least=least, tuned=tuned, most=most)
    if not profile.admits(tuned):
        raise InputError(
            "cannot build an engine for these shapes",
            got=f"N, H, W from {least} over {tuned} to {most}",
            expected="--min ≤ --opt ≤ --max on every axis",
        )
    return profile


def _require_profile(source: Path, metadata: ArtefactMetadata, profile: ShapeProfile | None) -> None:
    if metadata.static_shape is not None and profile is not None:
        raise InputError(
            f"cannot choose window shapes for {source}",
            got=f"a shape frozen to N, H, W = {metadata.static_shape}",
            fix="leave --tile, --batch, --min, --opt and --max out, or export the checkpoint without --shape",
        )
    if metadata.static_shape is None and profile is None:
        raise InputError(
            f"cannot build {source} without window shapes", expected="a profile: its shape is free"
        )


def _require_precision(source: Path, metadata: ArtefactMetadata, built: Built, builder: str) -> None:
    found = built.layers.precision
    if found != metadata.precision:
        counts = ", ".join(f"{count} in {name}" for name, count in built.layers.convolutions.items())
        raise EngineError(
            f"the engine that {builder} made of {source} does not compute in the artefact's precision",
            got=f"convolutions: {counts or 'none found'} (read from the {built.layers.read_from})",
            expected=f"most of them in {metadata.precision}",
            errors=[],
            fix="report it, with the versions that dim-export inspect prints",
        )


def _describe(
    name: EngineBuilder, module: Any, options: BuildOptions, built: Built, source_sha256: str
) -> EngineInfo:
    return EngineInfo(
        builder=name,
        version=str(module.__version__),
        compute_capabilities=options.compute_capabilities if name == "tensorrt-rtx" else (_gpu_here(),),
        platform=this_platform(),
        profile=options.profile,
        hardware_compatible=options.hardware_compatible,
        version_compatible=options.version_compatible,
        workspace_bytes=options.workspace_bytes,
        layers=built.layers.kinds,
        convolutions={str(precision): count for precision, count in built.layers.convolutions.items()},
        precision_read_from=built.layers.read_from,
        source_sha256=source_sha256,
        plan_bytes=len(built.plan),
        plan_sha256="",
    )


def _gpu_here() -> str:
    """Compute capability of the GPU that TensorRT builds for: the first."""
    return Cuda(cuda_runtime("tensorrt")).compute_capability()


def _extended(metadata: ArtefactMetadata, info: EngineInfo, command: str) -> ArtefactMetadata:
    versions = metadata.versions | {"dim-matting": dim.__version__, info.builder: info.version}
    return metadata.model_copy(
        update={
            "engine": info,
            "versions": versions,
            "oldest_readers": {info.builder: info.version} if info.version_compatible else {},
            "command": "; ".join(filter(None, (metadata.command, command))),
        }
    )
