"""The ways to an alpha that measure_quality.py compares, and how each is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dim.arrays import UInt8
from dim.bit_depth import quantise
from dim.frozen_model import FrozenModel
from dim.trimap import apply_known
from dim_runtime import Matting
from dim_runtime.backends.open import BackendName, Precision
from dim_training.scoring.predictors import Predictor, open_predictor

Classical = Literal["cf", "knn", "lbdm"]
"""Suffixes of pymatting's functions ``estimate_alpha_…``."""

PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "pymatting", "scipy", "numba", "numpy")
REFERENCE, OURS, INT8 = "PyTorch fp32", "ONNX Runtime fp32", "ONNX Runtime int8"
CLOSED_FORM, KNN, LEARNING_BASED = "closed form", "KNN", "learning based"
HALF = "unknown pixels left at 0.5"


class Method(FrozenModel):
    """A name for the page, and what to run; without any of it, unknown pixels stay at 0.5.

    Attributes:
        checkpoint: the network as a whole image in PyTorch, as ``dim-train test`` runs it.
        artefact: an exported file in the runtime, with ``backend`` and ``precision``.
        classical: a method of pymatting with its default options.
    """

    name: str
    checkpoint: Path | None = None
    artefact: Path | None = None
    backend: BackendName | None = None
    precision: Precision | None = None
    classical: Classical | None = None

    @property
    def file(self) -> Path | None:
        """The weights; None for methods without."""
        return self.checkpoint or self.artefact


def all_methods(checkpoint: Path, fp32: Path, int8: Path) -> list[Method]:
    """Return the methods in the page's order."""
    return [
        Method(name=REFERENCE, checkpoint=checkpoint),
        Method(name=OURS, artefact=fp32, backend="onnxruntime"),
        Method(name=INT8, artefact=int8, backend="onnxruntime"),
        Method(name="OpenVINO fp32", artefact=fp32, backend="openvino"),
        Method(name="OpenVINO bf16", artefact=fp32, backend="openvino", precision="bf16"),
        Method(name="OpenVINO int8", artefact=int8, backend="openvino"),
        Method(name=CLOSED_FORM, classical="cf"),
        Method(name=KNN, classical="knn"),
        Method(name=LEARNING_BASED, classical="lbdm"),
        Method(name=HALF),
    ]


@contextmanager
def opened(method: Method, threads: int | None) -> Iterator[Predictor]:
    """Compute alpha of image and trimap, known pixels forced; ``threads`` is for artefacts."""
    if method.checkpoint is not None:
        with open_predictor(method.checkpoint) as predictor:
            yield predictor
    elif method.artefact is not None:
        engine = partial(Matting, backend=method.backend, precision=method.precision, threads=threads)
        with engine(method.artefact) as matting:
            yield lambda image, trimap: _eight_bits(matting(image, trimap))
    elif method.classical is not None:
        yield partial(_classical, method.classical)
    else:
        yield lambda image, trimap: trimap.copy()


def _classical(method: Classical, image: UInt8, trimap: UInt8) -> UInt8:
    # Imported here: it compiles its kernels on import.
    import pymatting

    estimate = getattr(pymatting, f"estimate_alpha_{method}")
    return apply_known(_eight_bits(np.clip(estimate(image / 255, trimap / 255), 0, 1)), trimap)


def _eight_bits(alpha: npt.NDArray[np.floating]) -> UInt8:
    return quantise(alpha, 8).astype(np.uint8, copy=False)


def installed() -> dict[str, str]:
    """Return the versions of the installed packages of :data:`PACKAGES`."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
