"""Matte a photograph of any size with a model on an inference server: Triton, or another of KServe v2.

    dim-export triton model.onnx -o models/ --windows 1024,1024
    python triton_client.py http://localhost:8000 model_1024x1024 photo.jpg trimap.png alpha.png

The windows are planned, cut and stitched here; only their pixels travel. No engine is needed on this side.
"""

from __future__ import annotations

import sys

import cv2

from dim.bit_depth import quantise
from dim_runtime import Matting
from dim_runtime.backends.kserve import KServeBackend


def main(url: str, model: str, photo: str, trimap_file: str, output: str) -> None:
    """Matte one pair; arguments as on the command line; ``output`` gets 8 bits a pixel."""
    image = cv2.imread(photo, cv2.IMREAD_COLOR)[..., ::-1]
    trimap = cv2.imread(trimap_file, cv2.IMREAD_GRAYSCALE)
    with Matting.from_backend(KServeBackend(url, model)) as matting:
        plan = matting.plan(trimap)
        print(f"{len(plan.windows)} windows, {plan.cost:.0%} of the photograph's area")
        cv2.imwrite(output, quantise(matting(image, trimap), 8))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit("usage: python triton_client.py URL MODEL PHOTO TRIMAP ALPHA.png")
    main(*sys.argv[1:])
