"""Whether an engine can run here: builder, release, GPU. Each error names both sides and a command."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import NamedTuple

from dim.contract import EngineBuilder, EngineInfo
from dim_runtime.errors import BackendError

PORTABLE_FROM = (8, 0)
"""Compute capability from which TensorRT's hardware-compatible engines run: NVIDIA's Ampere."""
RTX_PORTABLE = ("8.6", "8.9", "12.0")
"""Compute capabilities that TensorRT-RTX's engines run on by default (its support matrices 1.0 to 1.5)."""

NAMES: dict[EngineBuilder, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
RTX_BUILDABLE = ("7.5", *RTX_PORTABLE, "12.1")
"""Compute capabilities that TensorRT-RTX supports if the engine is built for them. A100 (8.0), H100 (9.0) and
B200 (10.0) are not among them."""


class Place(NamedTuple):
    """The machine that is to run an engine.

    Attributes:
        builder: the installed package.
        version: its release.
        capability: compute capability of the GPU, such as "8.6".
        platform: as :func:`this_platform` returns it.
    """

    builder: EngineBuilder
    version: str
    capability: str
    platform: str


def this_platform() -> str:
    """Return operating system and machine, such as "Linux x86_64"."""
    machine = platform.machine()
    return f"{platform.system()} {'x86_64' if machine == 'AMD64' else machine}"


def require_builder(path: Path, engine: EngineInfo, builder: EngineBuilder) -> None:
    """Raise BackendError if another package than ``builder`` made the engine."""
    if engine.builder != builder:
        raise BackendError(
            f"cannot run {path} with {NAMES[builder]}",
            got=f"an engine of {NAMES[engine.builder]} {engine.version}",
            expected=f"an engine of {NAMES[builder]}",
            fix=f'backend="{engine.builder}" (--backend {engine.builder}), or build it again: '
            f"dim-export trt MODEL.onnx -o {path.name} --builder {builder}",
        )


def require_compatible(path: Path, engine: EngineInfo, here: Place) -> None:
    """Raise BackendError if release, platform or GPU are not those that the engine was built for."""
    require_builder(path, engine, here.builder)
    _require_version(path, engine, here)
    _require_platform(path, engine, here)
    _require_capability(path, engine, here)


def _require_version(path: Path, engine: EngineInfo, here: Place) -> None:
    built, found = _release(engine.version), _release(here.version)
    if built == found or (engine.version_compatible and found > built):
        return
    name = NAMES[engine.builder]
    raise BackendError(
        f"cannot run {path} with this release of {name}",
        got=f"{name} {here.version}",
        expected=f"{name} {engine.version}{' or later' if engine.version_compatible else ''}, which built it",
        why="plans are bound to the release that built them",
        fix=f"build it again here: {_rebuild(path, engine)}; or install that release",
    )


def _require_platform(path: Path, engine: EngineInfo, here: Place) -> None:
    if engine.builder == "tensorrt-rtx" or engine.platform == here.platform:
        # TensorRT-RTX documents its engines as portable between Linux and Windows.
        return
    raise BackendError(
        f"cannot run {path} on this platform",
        got=here.platform,
        expected=f"{engine.platform}, which built it",
        fix=f"build it again here: {_rebuild(path, engine)}",
    )


def _require_capability(path: Path, engine: EngineInfo, here: Place) -> None:
    if engine.hardware_compatible:
        fits, expected = _numbers(here.capability) >= PORTABLE_FROM, "8.0 or later"
    else:
        listed = engine.compute_capabilities or RTX_PORTABLE
        fits, expected = here.capability in listed, f"{' or '.join(listed)}, for which it was built"
    if fits:
        return
    why, fix = None, f"build it for this GPU: {_rebuild(path, engine, here.capability)}"
    if engine.builder == "tensorrt-rtx" and here.capability not in RTX_BUILDABLE:
        why = f"TensorRT-RTX supports RTX GPUs only: compute capability {', '.join(RTX_BUILDABLE)}"
        fix = "TensorRT (dim-export trt --builder tensorrt), or the .onnx artefact with ONNX Runtime"
    raise BackendError(
        f"cannot run {path} on this GPU",
        got=f"compute capability {here.capability}",
        expected=expected,
        why=why,
        fix=fix,
    )


def _rebuild(path: Path, engine: EngineInfo, capability: str | None = None) -> str:
    command = f"dim-export trt MODEL.onnx -o {path.name} --builder {engine.builder}"
    if engine.builder == "tensorrt":
        # It builds for the GPU of the machine that it runs on.
        return command
    wanted = [*engine.compute_capabilities, *([capability] if capability else [])]
    return f"{command} --compute-capability {','.join(wanted)}" if wanted else command


def _release(version: str) -> tuple[int, ...]:
    """Return major, minor and patch; the build number after them does not matter."""
    return _numbers(version)[:3]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
