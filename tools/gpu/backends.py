"""The network at full width as artefacts on a GPU: parity with PyTorch on the CPU, and speed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from networks import random_network
from timing import milliseconds, options

from dim import checkpoint
from dim.contract import Precision
from dim.files import write_text
from dim_export.graph.torch_backend import TorchBackend
from dim_export.onnx_export.export import export
from dim_runtime.backends.open import open_backend
from dim_runtime.selftest.references import Reference, compare, read_reference

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def main() -> None:
    """Write the JSON of this step."""
    given = options("The network at full width as artefacts on a GPU.")
    side = 64 if given.dry else 1024
    window = read_reference("plain")
    report: dict[str, Any] = {"device": given.device, "side": side, "artefacts": {}}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.safetensors"
        checkpoint.save(
            random_network(width=1 / 16 if given.dry else 1), source, provenance={"data": "random weights"}
        )
        alpha = TorchBackend(checkpoint.load(source)).run(window.image, window.trimap)
        reference = window._replace(alpha=alpha.astype(np.float32))
        for precision in PRECISIONS:
            target = Path(folder) / f"{precision}.onnx"
            export(source, target, precision=precision, command="python tools/gpu/backends.py")
            name = f"onnxruntime {precision}"
            report["artefacts"][name] = measured(target, reference, given.device, side)
            write_text(given.output, json.dumps(report, indent=2) + "\n")


def measured(path: Path, reference: Reference, device: str, side: int) -> dict[str, Any]:
    """Return difference and time of one artefact."""
    backend = open_backend(path, device=device)
    difference = compare(reference, backend.run(reference.image, reference.trimap))
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (1, side, side, 3), np.uint8)
    trimap = np.full((1, side, side), 128, np.uint8)
    time = milliseconds(lambda: backend.run(image, trimap), device, runs=5, warm=2)
    backend.close()
    return {
        "share_beyond": difference.share_beyond, "mean": difference.mean,
        "milliseconds": time, "windows_per_s": 1e3 / time, "bytes": path.stat().st_size,
    }  # fmt: skip


if __name__ == "__main__":
    main()
