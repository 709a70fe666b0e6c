"""Choice of the builder, its options, and which of them it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dim.contract import EngineBuilder, ShapeProfile
from dim.errors import DimError, InputError, MissingExtraError
from dim_runtime.artefacts.engine_compatibility import NAMES
from dim_runtime.backends.tensorrt import MODULES


class BuilderError(DimError):
    """No builder, more than one without a choice, or a builder that cannot start here."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        profile: the shapes it takes; None for a graph with a frozen shape, and only then.
        compute_capabilities: such as ("8.6", "12.0"); TensorRT-RTX only. Empty: 8.6, 8.9 and 12.0.
        hardware_compatible: for every GPU from compute capability 8.0 on; TensorRT only.
        version_compatible: for later releases too; TensorRT only.
        timing_cache: file that keeps kernel timings between builds; TensorRT only.
        workspace_bytes: limit of scratch memory on the GPU; None for the builder's own.
    """

    profile: ShapeProfile | None = None
    compute_capabilities: tuple[str, ...] = ()
    hardware_compatible: bool = False
    version_compatible: bool = False
    timing_cache: Path | None = None
    workspace_bytes: int | None = None


def choose_builder(requested: EngineBuilder | None) -> tuple[EngineBuilder, Any]:
    """Return the requested builder, or the only one that is installed, and its module.

    Raises:
        MissingExtraError: the requested one is not installed.
        BuilderError: none is installed, or both are and none was named.
    """
    if requested is not None:
        return requested, _imported(requested)
    installed: list[EngineBuilder] = [name for name, module in MODULES.items() if find_spec(module)]
    if len(installed) == 1:
        return installed[0], _imported(installed[0])
    if installed:
        raise BuilderError(
            "cannot choose a builder: both are installed",
            expected="one of tensorrt, tensorrt-rtx",
            fix="--builder tensorrt-rtx for RTX GPUs, --builder tensorrt for the GPU of this machine",
        )
    raise BuilderError(
        "cannot build an engine: neither TensorRT nor TensorRT-RTX is installed",
        fix='pip install "dim-matting[tensorrt-rtx]", or TensorRT itself from where NVIDIA offers it',
    )


def _imported(builder: EngineBuilder) -> Any:
    if find_spec(MODULES[builder]) is None:
        raise MissingExtraError("build an engine", package=MODULES[builder], extra=builder)
    try:
        return import_module(MODULES[builder])
    except (ImportError, OSError) as error:
        raise BuilderError(
            f"{NAMES[builder]} is installed but does not load", why=str(error), fix="install it again"
        ) from error


def require_applicable(builder: EngineBuilder, options: BuildOptions) -> None:
    """Raise InputError for an option that this builder does not have: none is silently ignored."""
    rtx = builder == "tensorrt-rtx"
    refused = {
        "--compute-capability": (
            bool(options.compute_capabilities) and not rtx,
            "TensorRT builds for the GPU of the machine that it runs on",
        ),
        "--hardware-compatible": (
            options.hardware_compatible and rtx,
            "its engines run on compute capability 8.6, 8.9 and 12.0; --compute-capability changes that",
        ),
        "--version-compatible": (
            options.version_compatible and rtx,
            "its engines run in the release that built them only",
        ),
        "--timing-cache": (options.timing_cache is not None and rtx, "it times no kernels while building"),
    }
    for option, (wrong, why) in refused.items():
        if wrong:
            raise InputError(
                f"{option} does not apply to {NAMES[builder]}", why=why, fix=f"leave {option} out"
            )
