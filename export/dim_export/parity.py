"""Does an artefact compute what its checkpoint computes?

DIM is discontinuous: unpooling follows an arg-max, so one near-tie that rounds the other way moves alpha
visibly in a small place, in a correct engine too. So the gates look at how many unknown pixels differ and by
how much in all, not at the largest difference. Every case runs through the runtime, the code that ships.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, computed_field

from dim import trimap as trimaps
from dim.contract import exact_context
from dim.errors import DimError
from dim.network import DIM
from dim_export.torch_backend import TorchBackend
from dim_runtime.backends.base import Backend
from dim_runtime.geometry import round_up
from dim_runtime.planning import Options, make_plan
from dim_runtime.tiling import run_plan

UInt8 = npt.NDArray[np.uint8]
Floating = npt.NDArray[np.floating[Any]]

VISIBLE = 1 / 255
"""One gray level: what an 8-bit alpha can show."""
LARGE_TILE = 1536


class ParityError(DimError):
    """An artefact that does not compute what its checkpoint computes."""

    exit_code = 1


class Case(NamedTuple):
    """One image, and how the runtime cuts it.

    Attributes:
        name: says what is special about it.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
        tile: largest window side, pixels.
    """

    name: str
    image: UInt8
    trimap: UInt8
    tile: int = LARGE_TILE


class Gates(BaseModel):
    """What an artefact must keep, as means over the cases."""

    model_config = ConfigDict(frozen=True)

    share_beyond: float = 0.005
    """Unknown pixels that differ by more than 1/255, over all unknown pixels."""
    sad_share: float = 0.005
    """SAD of the difference over (unknown pixels / 1000): the mean difference of an unknown pixel."""


class Difference(BaseModel):
    """Two alphas compared over the unknown pixels.

    Differences are NaN, and written as null, where either side holds a NaN.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")

    unknown_pixels: int
    share_beyond: float
    mean_difference: float
    max_difference: float
    sad: float
    nan_pixels: int
    spread: float
    """Standard deviation of the reference's alpha: near 0, the case cannot tell one network from another."""


class CaseResult(Difference):
    """Reference against artefact on one case."""

    name: str
    height: int
    width: int
    tile: int
    windows: int


class ParityReport(BaseModel):
    """All cases of one artefact."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")

    checkpoint: str
    artefact: str
    same_checkpoint: bool
    """Whether the artefact says that it was made from this very file."""
    gates: Gates
    cases: tuple[CaseResult, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_share_beyond(self) -> float:
        return math.fsum(case.share_beyond for case in self.cases) / len(self.cases)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_sad_share(self) -> float:
        return math.fsum(case.mean_difference for case in self.cases) / len(self.cases)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def nan_pixels(self) -> int:
        return sum(case.nan_pixels for case in self.cases)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        # Comparisons with NaN are false: a NaN anywhere fails.
        return (
            self.mean_share_beyond <= self.gates.share_beyond and self.mean_sad_share <= self.gates.sad_share
        )


def measure(
    model: DIM,
    backend: Backend,
    cases: Sequence[Case],
    *,
    checkpoint: str,
    artefact: str,
    same_checkpoint: bool,
    gates: Gates | None = None,
) -> ParityReport:
    """Run every case through PyTorch on the whole image and through the runtime on ``backend``.

    Args:
        model: the checkpoint's network, un-exported, with pooling by indices; put into float32.
        backend: the artefact, loaded.
        checkpoint, artefact: their names, for the report.
    """
    reference = TorchBackend(model)
    return ParityReport(
        checkpoint=checkpoint,
        artefact=artefact,
        same_checkpoint=same_checkpoint,
        gates=gates or Gates(),
        cases=tuple(_measured(reference, backend, case) for case in cases),
    )


def whole(backend: Backend, image: UInt8, trimap: UInt8) -> Floating:
    """Alpha of the whole image in one pass, padded by reflection at the bottom and right; floating H, W."""
    height, width = trimap.shape
    bottom, right = round_up(height) - height, round_up(width) - width
    padded = np.pad(image, ((0, bottom), (0, right), (0, 0)), "reflect")
    hints = np.pad(trimap, ((0, bottom), (0, right)), "reflect")
    return backend.run(padded[None], hints[None])[0, :height, :width]


def compare(reference: Floating, found: Floating, trimap: UInt8) -> Difference:
    """Compare two alphas, floating H, W, over the unknown pixels of the trimap, uint8 H, W."""
    where = trimaps.unknown(trimap)
    expected = reference[where].astype(np.float64)
    difference = np.abs(found[where].astype(np.float64) - expected)
    if not difference.size:
        expected = difference = np.zeros(1)
    nan = int(np.isnan(difference).sum())
    return Difference(
        unknown_pixels=int(where.sum()),
        share_beyond=math.nan if nan else float((difference > VISIBLE).mean()),
        mean_difference=float(difference.mean()),
        max_difference=float(difference.max()),
        sad=float(difference.sum()) / 1000,
        nan_pixels=nan,
        spread=float(expected.std()),
    )


def sample_cases(model: DIM, image: UInt8, trimap: UInt8) -> list[Case]:
    """Cases cut out of one photograph: multiples of 32 and not, upright and lying, tiny, whole and tiled.

    Args:
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
    """
    smallest_tile = 2 * exact_context(model.config) + 64
    cuts = (
        ("lying, multiple of 32", 288, 416),
        ("upright, odd", 333, 251),
        ("small", 45, 61),
        ("tiny", 17, 31),
    )
    cases = [Case(name, *_cut(image, trimap, height, width)) for name, height, width in cuts]
    return [
        *cases,
        Case("photograph", image, trimap),
        Case("photograph, tiled", image, trimap, smallest_tile),
    ]


def _cut(image: UInt8, trimap: UInt8, height: int, width: int) -> tuple[UInt8, UInt8]:
    """The cut of this size, or as much as there is, around the densest place of the unknown region."""
    height, width = min(height, trimap.shape[0]), min(width, trimap.shape[1])
    unknown = trimaps.unknown(trimap).astype(np.int64)
    # Sums over every window of this size, from the integral image.
    total = np.pad(unknown.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    y, x = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
    part = slice(y, y + height), slice(x, x + width)
    return image[part], trimap[part]


def _measured(reference: TorchBackend, backend: Backend, case: Case) -> CaseResult:
    plan = make_plan(case.trimap, backend, Options(tile=case.tile))
    found = np.empty(case.trimap.shape, np.float32)
    run_plan(backend, case.image, case.trimap, plan, found)
    expected = whole(reference, case.image, case.trimap)
    return CaseResult(
        name=case.name,
        height=plan.height,
        width=plan.width,
        tile=plan.tile,
        windows=len(plan.windows),
        **compare(expected, found, case.trimap).model_dump(),
    )
