"""Shipped networks, PyTorch's alphas for them, and the limits of the comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dim.arrays import Float32, Floating, UInt8
from dim_runtime.backends.open import default_model

DATA = Path(__file__).parent / "data"
PLAIN, PRODUCT, REFERENCES = "plain.onnx", "product.onnx", "references.npz"
"""Written by ``tools/gpu/make_references.py``: a network of the published architecture with a frozen shape, a
matrix product, and the window with both networks' alphas."""
SHAPE = (1, 192, 256)
"""N, H, W of the window, and of the plain network's frozen shape."""

VISIBLE = 1 / 255
"""One gray level: what an 8-bit alpha can show."""
FP32_SHARE_BEYOND = 0.005
"""Largest share of unknown pixels of an fp32 network that may differ by more than one gray level."""
FP32_MEAN_DIFFERENCE = 0.005
"""Largest mean difference of the unknown pixels of an fp32 network."""

Network = Literal["embedded", "plain"]
NETWORKS: tuple[Network, ...] = ("embedded", "plain")


class Reference(NamedTuple):
    """One network's window and its alpha in PyTorch: float32 on the CPU.

    Attributes:
        image: uint8 N, H, W, 3 RGB.
        trimap: uint8 N, H, W.
        alpha: float32 N, H, W.
    """

    image: UInt8
    trimap: UInt8
    alpha: Float32


class Difference(NamedTuple):
    """Two alphas compared over the unknown pixels.

    Attributes:
        share_beyond: share of the pixels that differ by more than one gray level, 0 to 1.
        mean: mean absolute difference.
        known_exact: whether known pixels are exactly 0 and 1.
    """

    share_beyond: float
    mean: float
    known_exact: bool

    @property
    def passed(self) -> bool:
        """Whether the limits of fp32 are kept; NaN keeps none."""
        within = self.share_beyond <= FP32_SHARE_BEYOND and self.mean <= FP32_MEAN_DIFFERENCE
        return within and self.known_exact


def model_path(network: Network) -> Path:
    """Return the ONNX artefact of a network."""
    return default_model() if network == "embedded" else DATA / PLAIN


def read_reference(network: Network) -> Reference:
    """Read the window and the alpha that PyTorch computes for it."""
    with np.load(DATA / REFERENCES) as arrays:
        return Reference(arrays["image"], arrays["trimap"], arrays[network])


def read_embedded_sha256() -> str:
    """Return the SHA-256 of the embedded model that the references were computed with."""
    with np.load(DATA / REFERENCES) as arrays:
        return str(arrays["embedded_sha256"])


def compare(reference: Reference, alpha: Floating) -> Difference:
    """Compare an alpha N, H, W with the reference."""
    unknown = reference.trimap == 128
    gap = np.abs(alpha[unknown].astype(np.float64) - reference.alpha[unknown])
    known = np.array_equal(alpha[~unknown], reference.trimap[~unknown] / np.float32(255))
    beyond = float("nan") if np.isnan(gap).any() else float((gap > VISIBLE).mean())
    return Difference(beyond, float(gap.mean()), known)
