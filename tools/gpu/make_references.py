"""Write the files that ``dim-matte doctor --gpu`` compares with: PyTorch's numbers, so it needs no torch.

usage: python tools/gpu/make_references.py
Run it after a change of the embedded model, and commit runtime/dim_runtime/selftest/data.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from networks import random_network
from onnx import TensorProto, helper

from dim import checkpoint
from dim.arrays import Float32, UInt8
from dim.files import sha256, write_bytes
from dim_export.graph.torch_backend import TorchBackend
from dim_export.onnx_export.export import export
from dim_runtime.backends.open import default_model
from dim_runtime.images.samples import lemur
from dim_runtime.selftest.references import DATA, PLAIN, PRODUCT, REFERENCES, SHAPE

WIDTH = 1 / 16
"""Of the plain network: the published architecture in 0.4 MB."""


def main() -> None:
    """Write the plain network, the matrix product, and the alphas of both networks."""
    image, trimap = window()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.safetensors"
        checkpoint.save(random_network(width=WIDTH), plain, provenance={"data": "random weights"})
        export(plain, DATA / PLAIN, static_shape=SHAPE, command="python tools/gpu/make_references.py")
        alphas = {
            "plain": alpha(plain, image, trimap),
            "embedded": alpha(default_model().with_suffix(".safetensors"), image, trimap),
        }
    write_bytes(DATA / PRODUCT, product().SerializeToString())
    np.savez_compressed(
        DATA / REFERENCES, image=image, trimap=trimap, embedded_sha256=sha256(default_model()), **alphas
    )
    for file in sorted(DATA.iterdir()):
        print(f"{file.name}: {file.stat().st_size} bytes")


def window() -> tuple[UInt8, UInt8]:
    """Return the window of the shipped photograph that has the most unknown pixels."""
    image, trimap = lemur()
    _, height, width = SHAPE
    corners = [
        (y, x)
        for y in range(0, trimap.shape[0] - height + 1, 32)
        for x in range(0, trimap.shape[1] - width + 1, 32)
    ]
    y, x = max(corners, key=lambda corner: _unknown(trimap, *corner))
    return image[None, y : y + height, x : x + width], trimap[None, y : y + height, x : x + width]


def alpha(path: Path, image: UInt8, trimap: UInt8) -> Float32:
    """Return what PyTorch computes on the CPU in float32."""
    return TorchBackend(checkpoint.load(path)).run(image, trimap).astype(np.float32)


def product() -> onnx.ModelProto:
    """Return the graph c = a · b of square float32 matrices."""
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "n"]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _unknown(trimap: UInt8, y: int, x: int) -> int:
    _, height, width = SHAPE
    return int((trimap[y : y + height, x : x + width] == 128).sum())


if __name__ == "__main__":
    main()
