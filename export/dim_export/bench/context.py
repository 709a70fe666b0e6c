"""Measure on photographs how much work a smaller context saves, and how much accuracy it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

import dim.trimap
from dim.arrays import Float32, UInt8
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim.images.folders import image_files
from dim_runtime.backends.open import BackendName
from dim_runtime.images.pairs import MattingSample
from dim_runtime.matting import Matting
from dim_runtime.planning.planner import Context, Tile

CONTEXTS = (32, 64, 96, 128, 160)
"""Measured contexts, pixels; "exact" is measured, too."""


class ContextRow(FrozenModel):
    """Means over the photographs for one context.

    Attributes:
        context: pixels around each core; None is "exact".
        cost: planned multiply-adds over those of the whole image.
        planned_cost: the same for the further trimaps, which are planned only; None without any.
        difference: mean absolute difference of an unknown pixel's alpha from "exact".
        largest: largest difference of an unknown pixel.
        sad: Σ |alpha − truth| over unknown pixels / 1000; None without true alphas.
    """

    context: int | None
    cost: float
    planned_cost: float | None
    difference: float
    largest: float
    sad: float | None


def measure(
    model: Path | None,
    scenes: Sequence[MattingSample],
    *,
    trimaps: Sequence[UInt8] = (),
    tile: Tile = "auto",
    backend: BackendName | None = None,
    threads: int | None = None,
) -> list[ContextRow]:
    """Return a row for "exact" and one for each of :data:`CONTEXTS`.

    Args:
        model: artefact; None takes the embedded model.
        scenes: photographs to matte.
        trimaps: further trimaps, uint8 H, W, which are planned only.
        tile: largest side of a window, context included, pixels; "auto" as in the runtime.
        backend: None takes the default by suffix.
        threads: threads of one operator; None for the engine's choice.
    """
    exact: list[Float32] = []
    rows = []
    contexts: tuple[Context, ...] = ("exact", *reversed(CONTEXTS))
    for context in contexts:
        with Matting(model, backend=backend, tile=tile, context=context, threads=threads) as matting:
            alphas = [matting(scene.image, scene.trimap) for scene in scenes]
            exact = exact or alphas
            rows.append(
                ContextRow(
                    context=None if context == "exact" else context,
                    cost=_mean_cost(matting, (scene.trimap for scene in scenes)),
                    planned_cost=_mean_cost(matting, trimaps) if trimaps else None,
                    **_differences(scenes, alphas, exact),
                )
            )
    return rows


def read_trimaps(folder: Path) -> list[UInt8]:
    """Read every trimap of a folder: canonical, uint8 H, W.

    Raises:
        InputError: a folder without images, or a file that is no trimap.
    """
    files = image_files(folder)
    if not files:
        raise InputError(f"cannot find trimaps in {folder}", got="none")
    return [dim.trimap.read(path).trimap for path in files]


def _mean_cost(matting: Matting, trimaps: Iterable[UInt8]) -> float:
    return fmean(matting.plan(trimap).cost for trimap in trimaps)


def _differences(
    scenes: Sequence[MattingSample], alphas: Sequence[Float32], exact: Sequence[Float32]
) -> dict[str, float | None]:
    means, largest, sads = [], 0.0, []
    for scene, alpha, whole in zip(scenes, alphas, exact, strict=True):
        where = dim.trimap.unknown(scene.trimap)
        difference = np.abs(alpha[where] - whole[where])
        means.append(float(difference.mean()) if difference.size else 0.0)
        largest = max(largest, float(difference.max(initial=0)))
        if scene.alpha is not None:
            sads.append(float(np.abs(alpha[where] - scene.alpha[where] / np.float32(255)).sum()) / 1000)
    return {"difference": fmean(means), "largest": largest, "sad": fmean(sads) if sads else None}
