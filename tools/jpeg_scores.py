"""Score a model and closed-form matting on photographs that were saved as JPEG before.

    python tools/jpeg_scores.py PHOTOS [--model dim-compact]

PHOTOS holds images/, trimaps/ and alphas/, as for ``dim-train test``. Prints a table of the model's card:
mean SAD over unknown pixels, in thousands, for each quality (chroma halved both ways, as cameras do).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pymatting import estimate_alpha_cf

from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.metrics import sad
from dim.trimap import apply_known
from dim_runtime import Matting
from dim_runtime.backends.open import model_path
from dim_runtime.images.pairs import read_samples

QUALITIES = (None, 95, 90, 75)
"""Qualities of the JPEG files; None is the photograph as it is."""

Method = Callable[[UInt8, UInt8], UInt8]


def compressed(image: UInt8, quality: int | None) -> UInt8:
    """Return the image, uint8 H, W, 3, RGB, after JPEG compression; unchanged for None."""
    if quality is None:
        return image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]
    encoded = cv2.imencode(".jpg", image[..., ::-1], options)[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.uint8)


def classical(estimate: Callable[..., Any]) -> Method:
    """Return one of pymatting's methods, with its default options, as a method on uint8 arrays."""

    def method(image: UInt8, trimap: UInt8) -> UInt8:
        return quantise8(estimate(image / 255.0, trimap / 255.0))

    return method


def mean_sad(folder: Path, method: Method, quality: int | None) -> float:
    """Return the mean over the photographs of a folder of the SAD of a method's alphas."""
    found = []
    for sample in read_samples(folder):
        if sample.alpha is None:
            raise SystemExit(f"error: {folder} has no alphas/ to compare with")
        alpha = apply_known(method(compressed(sample.image, quality), sample.trimap), sample.trimap)
        truth = apply_known(sample.alpha, sample.trimap)
        found.append(sad(alpha, truth, sample.trimap))
    return float(np.mean(found))


def main() -> None:
    """Print one row for each method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", help="artefact, or the name of a shipped one; the embedded one by default")
    given = parser.parse_args()
    names = ["as it is", *(f"quality {quality}" for quality in QUALITIES[1:])]
    print(f"| SAD | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    with Matting(given.model) as matting:

        def ours(image: UInt8, trimap: UInt8) -> UInt8:
            return quantise8(matting(image, trimap))

        for name, method in (
            (model_path(given.model).stem, ours),
            ("closed form", classical(estimate_alpha_cf)),
        ):
            cells = [f"{mean_sad(given.photos, method, quality):.2f}" for quality in QUALITIES]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
