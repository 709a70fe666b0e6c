"""The reference: PyTorch's alpha of a case, with which artefacts are compared."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dim import checkpoint
from dim.arrays import Floating, UInt8
from dim.files import sha256
from dim_export.graph.torch_backend import TorchBackend
from dim_export.parity.cases import LARGE_TILE, Case
from dim_runtime.backends.base import Backend
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan

WHOLE_PIXELS = 1 << 20
"""Largest padded image that PyTorch runs in one pass, pixels: 1.4 GB for the full-width network in float32.
Larger references are tiled with exact context."""


class Expected(NamedTuple):
    """PyTorch's result for one case.

    Attributes:
        alpha: H, W, computed in float32.
        float64: H, W, computed in float64; None unless that is requested.
        choices: the choice of every pooling window of the padded image, as in
            :class:`dim_export.graph.torch_backend.Watched`; None if the reference was tiled.
    """

    alpha: Floating
    float64: Floating | None
    choices: tuple[UInt8, ...] | None


class Reference:
    """The network of a checkpoint, in float32 and on request in float64; caches its results.

    Args:
        path: a checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        float64: also compute in float64, which is exact up to flips of exact ties.
    """

    def __init__(self, path: Path, *, float64: bool = False) -> None:
        model = checkpoint.load(path)
        self.config = model.config
        self.sha256 = sha256(path)
        self._double = TorchBackend(copy.deepcopy(model), dtype=torch.float64) if float64 else None
        self._single = TorchBackend(model)
        self._network = model
        self._cache: dict[str, tuple[Case, Expected]] = {}

    def tensors(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield key and values of the network's tensors."""
        return ((name, value.numpy()) for name, value in self._network.state_dict().items())

    @property
    def results(self) -> list[tuple[Case, Expected]]:
        """The cached results: each image once, with the first case that needed it."""
        return list(self._cache.values())

    def forget(self) -> None:
        """Clear the cache, before another picture."""
        self._cache.clear()

    def expected(self, case: Case, plan: Plan) -> Expected:
        """Return PyTorch's result; cases that differ only in the tile share one.

        Args:
            plan: the artefact's plan, which has the size that the image is padded to.
        """
        key = _key(case, plan)
        if key not in self._cache:
            self._cache[key] = case, self._compute(case, plan)
        return self._cache[key][1]

    def _compute(self, case: Case, plan: Plan) -> Expected:
        double = None if self._double is None else reference_alpha(self._double, case, plan)
        if not runs_whole(plan):
            return Expected(reference_alpha(self._single, case, plan), double, None)
        height, width = case.sample.trimap.shape
        image, trimap = padded(case.sample.image, case.sample.trimap, plan)
        watched = self._single.watch(image[None], trimap[None])
        return Expected(watched.alpha[0, :height, :width], double, watched.choices)


def runs_whole(plan: Plan) -> bool:
    """Return whether the reference runs the image in one pass."""
    return plan.padded_height * plan.padded_width <= WHOLE_PIXELS


def reference_alpha(backend: Backend, case: Case, plan: Plan) -> Floating:
    """Return the alpha of a case, floating H, W: in one pass, or in exact tiles if it is too large."""
    if runs_whole(plan):
        return whole(backend, case.sample.image, case.sample.trimap, plan)
    height, width = case.sample.trimap.shape
    image, trimap = padded(case.sample.image, case.sample.trimap, plan)
    return Matting.from_backend(backend, tile=LARGE_TILE)(image, trimap)[:height, :width]


def whole(backend: Backend, image: UInt8, trimap: UInt8, plan: Plan) -> Floating:
    """Return the alpha of the whole image in one pass, floating H, W.

    Args:
        plan: has the size to which the image is padded by reflection at the bottom and right: the next
            multiple of 32, or more for a frozen shape. The padding changes the alpha near these borders.
    """
    height, width = trimap.shape
    batch = (plane[None] for plane in padded(image, trimap, plan))
    return backend.run(*batch)[0, :height, :width]


def padded(image: UInt8, trimap: UInt8, plan: Plan) -> tuple[UInt8, UInt8]:
    """Pad image and trimap by reflection at the bottom and right, as the runtime does."""
    height, width = trimap.shape
    rows, columns = (0, plan.padded_height - height), (0, plan.padded_width - width)
    return np.pad(image, (rows, columns, (0, 0)), "reflect"), np.pad(trimap, (rows, columns), "reflect")


def _key(case: Case, plan: Plan) -> str:
    image, trimap = case.sample.image, case.sample.trimap
    content = hashlib.sha256(np.ascontiguousarray(image).data)
    content.update(np.ascontiguousarray(trimap).data)
    return f"{content.hexdigest()} {trimap.shape} {plan.padded_height}×{plan.padded_width}"
