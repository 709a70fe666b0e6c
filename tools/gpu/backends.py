"""The network at full width as artefacts on a GPU: parity with PyTorch, placement, memory and speed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from networks import random_network
from timing import free_mib, milliseconds, options

from dim import checkpoint
from dim.contract import EngineBuilder, Precision
from dim.errors import DimError
from dim.files import write_text
from dim_export.graph.torch_backend import TorchBackend
from dim_export.onnx_export.export import export
from dim_export.tensorrt.builders import BuildOptions
from dim_export.tensorrt.convert import convert, window_profile
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import open_backend
from dim_runtime.backends.tensorrt import MODULES
from dim_runtime.selftest.references import Reference, compare, read_reference

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "fp16"),
    "tensorrt": ("fp32", "fp16", "bf16"),
    "tensorrt-rtx": ("fp32", "fp16", "bf16"),
}
COMMAND = "python tools/gpu/backends.py"


class Sides(NamedTuple):
    """Sides of square windows, pixels: the timed one, and the ones that memory is measured after."""

    timed: int
    mixed: tuple[int, ...]


FULL = Sides(1024, (256, 512, 320, 768, 448, 1024, 640, 896))
DRY = Sides(64, (32, 64, 96))


class Source(NamedTuple):
    """The exported network and what PyTorch computes from it."""

    folder: Path
    checkpoint: Path
    reference: Reference


def main() -> None:
    """Write the JSON of this step; an artefact that fails is recorded and does not stop the others."""
    given = options("The network at full width as artefacts on a GPU.")
    sides = DRY if given.dry else FULL
    report: dict[str, Any] = {"device": given.device, "side": sides.timed, "artefacts": {}, "skipped": {}}
    with tempfile.TemporaryDirectory() as folder:
        source = prepare(Path(folder), width=1 / 16 if given.dry else 1)
        for name, precision in candidates(given.device, report["skipped"]):
            try:
                row = measured(
                    artefact(source, name, precision, sides), source.reference, given.device, sides
                )
            except DimError as error:
                row = {"failed": str(error)}
            report["artefacts"][f"{name} {precision}"] = row
            write_text(given.output, json.dumps(report, indent=2) + "\n")


def prepare(folder: Path, *, width: float) -> Source:
    """Write a checkpoint of random weights and compute the reference window with it in PyTorch."""
    path = folder / "network.safetensors"
    checkpoint.save(random_network(width=width), path, provenance={"data": "random weights"})
    window = read_reference("plain")
    alpha = TorchBackend(checkpoint.load(path)).run(window.image, window.trimap)
    return Source(folder, path, window._replace(alpha=alpha.astype(np.float32)))


def candidates(device: str, skipped: dict[str, str]) -> Iterator[tuple[str, Precision]]:
    """Yield back end and precision of what can run here; note the reason for each back end that cannot."""
    for name, precisions in PRECISIONS.items():
        if name != "onnxruntime" and not device.startswith("cuda"):
            skipped[name] = "needs a GPU"
        elif name != "onnxruntime" and find_spec(MODULES[name]) is None:
            skipped[name] = f"{MODULES[name]} is not installed"
        else:
            yield from ((name, precision) for precision in precisions)


def artefact(source: Source, name: str, precision: Precision, sides: Sides) -> Path:
    """Return the ONNX file or the engine; a file that exists is taken as it is."""
    path = source.folder / f"{precision}.onnx"
    if not path.exists():
        export(source.checkpoint, path, precision=precision, command=COMMAND)
    if name == "onnxruntime":
        return path
    builder: EngineBuilder = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    engine = source.folder / f"{name}-{precision}.engine"
    profile = window_profile(max(sides.mixed))
    convert(path, engine, builder=builder, options=BuildOptions(profile=profile), command=COMMAND)
    return engine


def measured(path: Path, reference: Reference, device: str, sides: Sides) -> dict[str, Any]:
    """Return difference, time, placement and memory of one artefact."""
    backend = open_backend(path, device=device)
    try:
        difference = compare(reference, backend.run(reference.image, reference.trimap))
        image, trimap = window(sides.timed)
        time = milliseconds(lambda: backend.run(image, trimap), device, runs=5, warm=2)
        memory = free_memory(backend, device, sides)
    finally:
        backend.close()
    return {
        "share_beyond": difference.share_beyond, "mean": difference.mean,
        "milliseconds": time, "windows_per_s": 1e3 / time, "bytes": path.stat().st_size,
        "free_mib_after_each_side": memory,
        "placement": placement(path, device) if path.suffix == ".onnx" else None,
    }  # fmt: skip


def free_memory(backend: Backend, device: str, sides: Sides) -> dict[int, int]:
    """Return the device's free memory after windows of mixed sizes, MiB: an arena that grows shows here."""
    found = {}
    for side in sides.mixed:
        backend.run(*window(side))
        found[side] = free_mib(device)
    return found


def placement(path: Path, device: str) -> dict[str, dict[str, int]]:
    """Return how many nodes of each type ran on each provider of ONNX Runtime, from its own profile."""
    import onnxruntime

    if device.startswith("cuda") and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    settings = onnxruntime.SessionOptions()
    settings.enable_profiling = True
    settings.profile_file_prefix = str(path.with_suffix(""))
    number = int(device.partition(":")[2] or 0)
    gpu = [("CUDAExecutionProvider", {"device_id": number})] if device.startswith("cuda") else []
    session = onnxruntime.InferenceSession(path, settings, providers=[*gpu, "CPUExecutionProvider"])
    image, trimap = window(64)
    session.run(None, {"image": image, "trimap": trimap})
    profile = Path(session.end_profiling())
    counts: dict[str, dict[str, int]] = {}
    for event in json.loads(profile.read_text(encoding="utf-8")):
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments and event["name"].endswith("_kernel_time"):
            kinds = counts.setdefault(arguments["provider"], {})
            kinds[arguments["op_name"]] = kinds.get(arguments["op_name"], 0) + 1
    return counts


def window(side: int) -> tuple[Any, Any]:
    """Return a random image (1, side, side, 3) and an unknown trimap (1, side, side), both uint8."""
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    return image, np.full((1, side, side), 128, np.uint8)


if __name__ == "__main__":
    main()
