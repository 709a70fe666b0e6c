"""Compare how soft alpha is with how soft it should be: training on hard borders makes it too hard.

    python tools/soft_pixels.py PHOTOS [MODEL ...]

PHOTOS holds images/, trimaps/ and alphas/. Prints a table for each model (a file, or the name of a shipped
one; the embedded one by default): for each photograph the SAD in thousands, the mean error, and the shares
of unknown pixels whose alpha is soft, as found and in truth. A mean error above 0 is too opaque.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dim.arrays import Bool, Float32
from dim.trimap import unknown
from dim_runtime import Matting
from dim_runtime.backends.open import SHIPPED_MODELS
from dim_runtime.images.pairs import find_pairs, read_sample

SOFT = (0.02, 0.98)
"""Alpha between these is soft."""


class Softness(NamedTuple):
    """The comparison of one photograph, over its unknown pixels."""

    sad: float
    error: float
    found: float
    true: float


def compare(alpha: Float32, truth: Float32, region: Bool) -> Softness:
    """Compare two alphas over the unknown pixels.

    Args:
        alpha, truth: float32 H, W in [0, 1].
        region: bool H, W: the unknown pixels, of which there is at least one.
    """
    found, true = alpha[region], truth[region]
    difference = found - true
    return Softness(
        float(np.abs(difference).sum()) / 1000, float(difference.mean()), _soft(found), _soft(true)
    )


def _soft(values: Float32) -> float:
    return float(((values > SOFT[0]) & (values < SOFT[1])).mean())


def table(rows: Iterable[tuple[str, Softness]]) -> str:
    """Return a Markdown table."""
    lines = ["| photograph | SAD | mean error | soft, found | soft, true |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {r.sad:.2f} | {r.error:+.3f} | {r.found:.3f} | {r.true:.3f} |" for name, r in rows]
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[SHIPPED_MODELS[0]])
    given = parser.parse_args()
    for model in given.models:
        rows = []
        with Matting(model) as matting:
            for sample in map(read_sample, find_pairs(given.photos, alphas=True)):
                truth = np.asarray(sample.alpha, np.float32) / 255
                alpha = matting(sample.image, sample.trimap)
                rows.append((sample.name, compare(alpha, truth, unknown(sample.trimap))))
        print(f"{model}:\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
