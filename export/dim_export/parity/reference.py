"""What PyTorch makes of a case: the side that artefacts are held against."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
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
"""Largest padded image that PyTorch runs in one pass: 1.4 GB of the full-width network in float32. Beyond it
the reference is tiled, exactly."""


class Expected(NamedTuple):
    """PyTorch's answer to one case.

    Attributes:
        alpha: float32 arithmetic, H, W.
        float64: the same in float64; None unless asked for.
        choices: of every pooling window of the padded image, as
        :class:`dim_export.graph.torch_backend.Watched` has
            them; None where the reference was tiled.
    """

    alpha: Floating
    float64: Floating | None
    choices: tuple[UInt8, ...] | None


class Reference:
    """The network of a checkpoint, in float32 and on request in float64; remembers its last answers.

    Args:
        path: a checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        float64: also compute in float64: what is true, up to flips of exact ties.
    """

    def __init__(self, path: Path, *, float64: bool = False) -> None:
        model = checkpoint.load(path)
        self.config = model.config
        self.sha256 = sha256(path)
        self.not_finite = tuple(
            name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())
        )
        self._double = TorchBackend(copy.deepcopy(model), dtype=torch.float64) if float64 else None
        self._single = TorchBackend(model)
        self._remembered: dict[str, tuple[Case, Expected]] = {}

    @property
    def answers(self) -> list[tuple[Case, Expected]]:
        """What is remembered: each image once, with the first case that asked for it."""
        return list(self._remembered.values())

    def forget(self) -> None:
        """Free what was remembered: the next picture is another one."""
        self._remembered.clear()

    def expected(self, case: Case, plan: Plan) -> Expected:
        """PyTorch's answer; cases that differ in the tile only share one.

        Args:
            plan: the artefact's, which tells the size that the image is padded to.
        """
        key = _key(case, plan)
        if key not in self._remembered:
            self._remembered[key] = case, self._compute(case, plan)
        return self._remembered[key][1]

    def _compute(self, case: Case, plan: Plan) -> Expected:
        double = None if self._double is None else reference_alpha(self._double, case, plan)
        if not runs_whole(plan):
            return Expected(reference_alpha(self._single, case, plan), double, None)
        image, trimap = padded(case.image, case.trimap, plan)
        watched = self._single.watch(image[None], trimap[None])
        height, width = case.trimap.shape
        return Expected(watched.alpha[0, :height, :width], double, watched.choices)


def runs_whole(plan: Plan) -> bool:
    """Whether the reference runs the image in one pass."""
    return plan.padded_height * plan.padded_width <= WHOLE_PIXELS


def reference_alpha(backend: Backend, case: Case, plan: Plan) -> Floating:
    """Alpha of a case, floating H, W: in one pass, or through exact tiles where that would take too much."""
    if runs_whole(plan):
        return whole(backend, case.image, case.trimap, plan)
    height, width = case.trimap.shape
    image, trimap = padded(case.image, case.trimap, plan)
    return Matting.from_backend(backend, tile=LARGE_TILE)(image, trimap)[:height, :width]


def whole(backend: Backend, image: UInt8, trimap: UInt8, plan: Plan) -> Floating:
    """Alpha of the whole image in one pass, floating H, W.

    Args:
        plan: tells the size to which the image is padded, by reflection, at the bottom and right. That is the
            next multiple of 32, but a frozen shape may want more, and what is there reaches into the image.
    """
    height, width = trimap.shape
    colours, hints = padded(image, trimap, plan)
    return backend.run(colours[None], hints[None])[0, :height, :width]


def padded(image: UInt8, trimap: UInt8, plan: Plan) -> tuple[UInt8, UInt8]:
    """Image and trimap padded by reflection at the bottom and right, as the runtime pads them."""
    height, width = trimap.shape
    rows, columns = (0, plan.padded_height - height), (0, plan.padded_width - width)
    return np.pad(image, (rows, columns, (0, 0)), "reflect"), np.pad(trimap, (rows, columns), "reflect")


def _key(case: Case, plan: Plan) -> str:
    content = hashlib.sha256(np.ascontiguousarray(case.image).data)
    content.update(np.ascontiguousarray(case.trimap).data)
    return f"{content.hexdigest()} {case.trimap.shape} {plan.padded_height}×{plan.padded_width}"
