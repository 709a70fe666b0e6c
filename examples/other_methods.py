"""Time another way from photograph and trimap to alpha, in its own process, for measure_performance.py.

    python examples/other_methods.py METHOD IMAGE TRIMAP [--model MODEL.onnx] [--runs 1]

It prints one JSON document: `seconds` of each run after a warm-up, and `peak_bytes` of the process. Methods:

* closed-form and knn: PyMatting.
* rembg: what its option for alpha matting computes, closed form and then foreground colours, by PyMatting.
* vitmatte: ViTMatte-S by transformers, with random weights, which changes neither time nor memory.
* onnx: an exported file in a bare ONNX Runtime session, as a whole image.
"""

import json
import resource
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dim.images.files import read_image, read_trimap
from dim_runtime.memory import peak_resident_bytes

STRIDE = 32
"""Pixels: networks take sides that are multiples of it."""


def main() -> None:
    """Read the command line, run the method, and print what was measured."""
    methods = {
        "closed-form": closed_form,
        "knn": knn,
        "rembg": rembg,
        "vitmatte": vitmatte,
        "onnx": onnx_runtime,
    }
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=methods)
    parser.add_argument("image", type=Path)
    parser.add_argument("trimap", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--memory", type=float, default=20, help="GB of addresses; beyond, it fails")
    given = parser.parse_args()
    # Several methods need more than a machine has: let them fail, not the machine.
    limit = int(given.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    image, trimap = np.asarray(read_image(given.image)), read_trimap(given.trimap)
    run = methods[given.method](image, trimap, given.model)
    seconds = [timed(run) for _ in range(given.runs + 1)][1:]
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_resident_bytes()}))


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def closed_form(image: np.ndarray, trimap: np.ndarray, _: Path | None) -> Callable[[], object]:
    """Estimate alpha by closed-form matting."""
    import pymatting

    return lambda: pymatting.estimate_alpha_cf(image / 255, trimap / 255)


def knn(image: np.ndarray, trimap: np.ndarray, _: Path | None) -> Callable[[], object]:
    """Estimate alpha by KNN matting."""
    import pymatting

    return lambda: pymatting.estimate_alpha_knn(image / 255, trimap / 255)


def rembg(image: np.ndarray, trimap: np.ndarray, _: Path | None) -> Callable[[], object]:
    """Estimate alpha and foreground as rembg does, at the photograph's size."""
    import pymatting

    def run() -> object:
        alpha = pymatting.estimate_alpha_cf(image / 255, trimap / 255)
        return pymatting.estimate_foreground_ml(image / 255, alpha)

    return run


def vitmatte(image: np.ndarray, trimap: np.ndarray, _: Path | None) -> Callable[[], object]:
    """Run a ViTMatte-S of the published shape: windows of 14 tokens, global attention in four blocks."""
    import torch
    from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

    backbone = VitDetConfig(
        hidden_size=384,
        num_attention_heads=6,
        num_channels=4,
        image_size=512,
        window_size=14,
        window_block_indices=[0, 1, 3, 4, 6, 7, 9, 10],
        residual_block_indices=[2, 5, 8, 11],
        use_relative_position_embeddings=True,
        out_features=["stage12"],
    )
    config = VitMatteConfig(backbone_config=backbone, hidden_size=384)
    # transformers 5 keeps tuples that its own decoder joins to lists.
    for name in ("convstream_hidden_sizes", "fusion_hidden_sizes"):
        setattr(config, name, list(getattr(config, name)))
    model = VitMatteForImageMatting(config).eval()
    planes = padded(np.dstack([image, trimap])).astype(np.float32) / 255
    pixels = torch.from_numpy(planes).permute(2, 0, 1)[None].contiguous()

    def run() -> object:
        with torch.inference_mode():
            return model(pixel_values=pixels).alphas.numpy()

    return run


def onnx_runtime(image: np.ndarray, trimap: np.ndarray, model: Path | None) -> Callable[[], object]:
    """Run an exported file over the whole photograph in a bare session."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    inputs = {"image": padded(image)[None], "trimap": padded(trimap[..., None])[None, ..., 0]}
    return lambda: session.run(None, inputs)


def padded(planes: np.ndarray) -> np.ndarray:
    """Mirror rows and columns, H, W, C, up to multiples of the stride."""
    rows, columns = (-side % STRIDE for side in planes.shape[:2])
    return np.pad(planes, [(0, rows), (0, columns), (0, 0)], mode="reflect")


if __name__ == "__main__":
    main()
