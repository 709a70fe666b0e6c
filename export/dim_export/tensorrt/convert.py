"""ONNX artefact -> engine file: a plan behind a header that describes it and names its release and GPU."""

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
from dim_runtime.backends.cuda import Gpu, import_core
from dim_runtime.planning.planner import DEFAULT_TILE

TILE = DEFAULT_TILE
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
        The header's document, the engine section included.

    Raises:
        ArtefactError, ContractError: not an ONNX artefact of this toolkit.
        InputError: an option that the builder or the artefact does not have.
        MissingExtraError, BuilderError: no builder, or one that cannot start here.
        EngineError: the builder refused the graph, or reads it in another precision.
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
    """Return the shapes of the runtime's windows, from the smallest to a batch of squares.

    Optimised for one square of ``tile`` pixels: most windows of a large image have that shape.

    Raises:
        InputError: a tile that is no positive multiple of 32, or a batch below 1.
    """
    return checked_profile((1, STRIDE, STRIDE), (1, tile, tile), (batch, tile, tile))


def checked_profile(smallest: WindowShape, optimum: WindowShape, largest: WindowShape) -> ShapeProfile:
    """Return a profile; InputError if its shapes N, H, W do not ascend or are not on the grid of 32."""
    for shape in (smallest, optimum, largest):
        if shape[0] < 1 or any(side < STRIDE or side % STRIDE for side in shape[1:]):
            raise InputError(
                "cannot build an engine for this shape",
                got=f"N, H, W = {shape}",
                expected=f"N of 1 or more, H and W positive multiples of {STRIDE} pixels",
            )
    profile = ShapeProfile(min=smallest, opt=optimum, max=largest)
    if not profile.admits(optimum):
        raise InputError(
            "cannot build an engine for these shapes",
            got=f"N, H, W from {smallest} over {optimum} to {largest}",
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
    # The network's word: of a merged layer, the engine reports only the types at its outer edges.
    if built.precision != metadata.precision:
        raise EngineError(
            f"{builder} does not read {source} in the artefact's precision",
            got=f"most convolutions in {built.precision or 'no known type'}",
            expected=f"most convolutions in {metadata.precision}",
            errors=[],
            fix="report it, with the versions that dim-export inspect prints",
        )


def _describe(
    name: EngineBuilder, module: Any, options: BuildOptions, built: Built, source_sha256: str
) -> EngineInfo:
    capabilities = options.compute_capabilities if name == "tensorrt-rtx" else (_local_capability(),)
    return EngineInfo(
        builder=name,
        version=str(module.__version__),
        compute_capabilities=capabilities,
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


def _local_capability() -> str:
    """Return the compute capability of the GPU that TensorRT builds for: the first."""
    return Gpu(import_core("tensorrt")).capability


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
