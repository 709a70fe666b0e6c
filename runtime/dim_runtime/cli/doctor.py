"""``dim-matte doctor``: what is installed, what runs here, and how to install the rest."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import dim
from dim.errors import DimError, install_command
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import first_line
from dim_runtime.backends.open import BackendName, default_model
from dim_runtime.cli.gpu_report import REPORT, report_gpu
from dim_runtime.matting import Matting

NEVER_EXECUTED = "engine files (.engine); no GPU has run one of ours yet"
"""The state of the back ends TensorRT and TensorRT-RTX, in the report."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: the subject: a package, a back end, "gpus", "model".
        ok: whether it is installed and works.
        needed: whether no matte can be made without it.
        text: the finding, or how to install it.
    """

    name: str
    ok: bool
    needed: bool
    text: str


class Package(NamedTuple):
    """An optional package.

    Attributes:
        module: its import name.
        names: the distributions that contain this module, the usual one first.
        extra: the extra of dim-matting that installs it.
        purpose: its use in this toolkit.
    """

    module: str
    names: tuple[str, ...]
    extra: str
    purpose: str


ONNXRUNTIME = Package(
    "onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "cpu", "ONNX Runtime, the default back end"
)
OPENVINO = Package(
    "openvino",
    ("openvino",),
    "openvino",
    "OpenVINO, the fastest in bf16 and int8 on x86 CPUs",
)
OTHERS = (
    Package(
        "tensorrt", ("tensorrt",), "tensorrt", f"TensorRT, from NVIDIA's package index: {NEVER_EXECUTED}"
    ),
    Package("tensorrt_rtx", ("tensorrt-rtx",), "tensorrt-rtx", f"TensorRT-RTX: {NEVER_EXECUTED}"),
    Package("pymatting", ("pymatting",), "cutout", "foreground colours of cut-outs"),
    Package("tifffile", ("tifffile",), "tiff", "TIFF files of any size"),
    Package("rembg", ("rembg",), "auto", "masks of the salient object"),
    Package("fastapi", ("fastapi",), "serve", "dim-matte serve, an HTTP server and its page"),
    Package("tritonclient", ("tritonclient",), "kserve", "models on inference servers"),
    Package("ray", ("ray",), "ray", "batches on many machines"),
)


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Test every GPU back end: results, memory and speed; takes minutes.")
    ] = False,
    device: Annotated[str, typer.Option(help="With --gpu: cuda or cuda:N.")] = "cuda",
    output: Annotated[Path, typer.Option("-o", "--output", help="With --gpu: JSON file to write.")] = REPORT,
) -> None:
    """Report what is installed, what runs here, and how to install the rest."""
    if gpu:
        report_gpu(device, output, as_json=as_json)
        return
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            typer.echo(f"[{'ok' if finding.ok else '--'}] {finding.text}")
    if as_json:
        typer.echo(to_json(findings))
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Look at this installation, the quick checks first; the last ones run the embedded model."""
    machine = f"{platform.system()} {platform.machine()}"
    toolkit = f"dim-matting {dim.__version__}, Python {platform.python_version()}, {machine}"
    yield Finding("dim-matting", True, True, toolkit)
    yield _package(ONNXRUNTIME, needed=True)
    yield from _clash()
    yield _package(OPENVINO)
    for package in OTHERS:
        yield _package(package)
    yield _gpus()
    yield _model()
    yield from _trials()


def to_json(findings: Iterable[Finding]) -> str:
    """Return the report as a JSON list of objects with the fields of :class:`Finding`."""
    return json.dumps([finding._asdict() for finding in findings], indent=2, ensure_ascii=False)


def _package(package: Package, *, needed: bool = False) -> Finding:
    usual = package.names[0]
    if find_spec(package.module) is None:
        how = f"{usual}: not installed ({package.purpose}); {install_command(package.extra)}"
        return Finding(usual, False, needed, how)
    found = _versions(package.names) or {usual: "of unknown version"}
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    return Finding(usual, True, needed, f"{listed} ({package.purpose})")


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # The same module comes in several packages, such as a nightly build.
            continue
    return found


def _clash() -> Iterator[Finding]:
    """Report if both packages of the module ``onnxruntime`` are installed: the later overwrote the other."""
    found = _versions(ONNXRUNTIME.names)
    if len(found) < 2:
        return
    both = " and ".join(f"{name} {number}" for name, number in found.items())
    remove = f"pip uninstall -y {' '.join(found)}"
    yield Finding(
        "onnxruntime clash",
        False,
        True,
        f"{both} are installed together and overwrite each other's files; to fix this, run\n"
        f"       {remove} && pip install onnxruntime-gpu   (for CUDA)\n"
        f"       {remove} && pip install onnxruntime       (for the CPU)",
    )


def _gpus() -> Finding:
    try:
        from cuda.core import Device
    except ImportError:
        how = f"cannot be seen without cuda-core; {install_command('gpu')}"
        return Finding("gpus", False, False, f"NVIDIA GPUs: {how}")
    try:
        found = [f"cuda:{device.device_id} {_gpu_text(device)}" for device in Device.get_all_devices()]
    except Exception as error:
        # No driver, or one that does not start: each fails in its own way.
        return Finding("gpus", False, False, f"NVIDIA GPUs: none ({first_line(error)})")
    return Finding("gpus", bool(found), False, f"NVIDIA GPUs: {', '.join(found) or 'none'}")


def _gpu_text(device: Any) -> str:
    major, minor = device.compute_capability
    return f"{device.name} (compute capability {major}.{minor})"


def _model() -> Finding:
    try:
        metadata = read_metadata(default_model())
    except DimError as error:
        return Finding("model", False, False, f"embedded model: {error}")
    network = metadata.network
    size = f"{metadata.parameters / 1e6:.1f} M parameters, {metadata.precision}"
    return Finding(
        "model", True, False, f"embedded model: stage {network.stage}, width {network.width:g}, {size}"
    )


def _trials() -> Iterator[Finding]:
    """Make a small matte on every back end and device that takes the embedded model."""
    yield _trial("onnxruntime", "cpu", needed=True)
    if _has_cuda():
        yield _trial("onnxruntime", "cuda")
    if find_spec(OPENVINO.module) is not None:
        yield _trial("openvino", "cpu")


def _has_cuda() -> bool:
    try:
        from onnxruntime import get_available_providers
    except ImportError:
        return False
    return "CUDAExecutionProvider" in get_available_providers()


def _trial(backend: BackendName, device: str, *, needed: bool = False) -> Finding:
    name, what = f"{backend} {device}", f"a matte with {backend} on {device}"
    try:
        with Matting(backend=backend, device=device) as matting:
            matting(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 128, np.uint8))
    except Exception as error:
        # Any error counts: a damaged installation fails in its own way.
        return Finding(name, False, needed, f"{what}: {error}")
    return Finding(name, True, needed, f"{what}: runs")
