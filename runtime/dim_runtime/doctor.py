"""What is installed, what runs here, and how to get what is missing."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

import dim
from dim.errors import DimError
from dim_runtime.matting import Matting, default_model
from dim_runtime.onnx_file import read_metadata


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        ok: whether it is there and works.
        needed: whether mattes cannot be made without it.
        text: what was found, or how to get it.
    """

    ok: bool
    needed: bool
    text: str


def examine() -> Iterator[Finding]:
    """Look at this installation, the quick checks first; the last one runs the embedded model."""
    yield Finding(
        True, True, f"dim-matting {dim.__version__}, Python {platform.python_version()}, {_machine()}"
    )
    yield _package("onnxruntime", "onnxruntime", extra="cpu", purpose="the CPU back end", needed=True)
    yield _package(
        "pymatting", "pymatting", extra="cutout", purpose="foreground colours of cut-outs", needed=False
    )
    yield _model()
    yield _trial()


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}"


def _package(module: str, package: str, *, extra: str, purpose: str, needed: bool) -> Finding:
    if find_spec(module) is None:
        return Finding(
            False, needed, f'{package}: not installed ({purpose}); pip install "dim-matting[{extra}]"'
        )
    return Finding(True, needed, f"{package} {_version(package)} ({purpose})")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # The same module comes in several packages: onnxruntime-gpu, a nightly build.
        return "of unknown version"


def _model() -> Finding:
    try:
        metadata = read_metadata(default_model())
    except DimError as error:
        return Finding(False, False, f"embedded model: {error}")
    network = metadata.network
    size = f"{metadata.parameters / 1e6:.1f} M parameters, {metadata.precision}"
    return Finding(True, False, f"embedded model: stage {network.stage}, width {network.width:g}, {size}")


def _trial() -> Finding:
    try:
        with Matting(threads=1) as matting:
            matting(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 128, np.uint8))
    except DimError as error:
        return Finding(False, True, f"a matte on the CPU: {error}")
    return Finding(True, True, "a matte on the CPU: runs")
