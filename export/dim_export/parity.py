"""Does an artefact compute what its checkpoint computes?

DIM is discontinuous: unpooling follows an arg-max, so one near-tie that rounds the other way moves alpha
visibly in a small place, in a correct engine too. So the gates look at how many unknown pixels differ and by
how much in all, not at the largest difference. Every case runs through the runtime, the code that ships.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, computed_field

from dim import checkpoint
from dim import trimap as trimaps
from dim.contract import ArtefactMetadata
from dim.errors import DimError
from dim_export.torch_backend import TorchBackend
from dim_runtime.backends.base import Backend
from dim_runtime.backends.opening import open_backend
from dim_runtime.geometry import Plan
from dim_runtime.matting import Matting
from dim_runtime.samples import lemur

UInt8 = npt.NDArray[np.uint8]
Floating = npt.NDArray[np.floating[Any]]

VISIBLE = 1 / 255
"""One gray level: what an 8-bit alpha can show."""
LARGE_TILE = 1536
_CUTS = (("multiple of 32", 288, 416), ("odd, upright", 333, 251), ("small", 45, 61), ("tiny", 17, 31))
"""Name, height, width of the cases that are cut out of the photograph."""


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


def verify(
    checkpoint_path: Path, artefact: Path, *, gates: Gates | None = None, threads: int | None = None
) -> ParityReport:
    """Measure an artefact against a checkpoint on the shipped photograph.

    Args:
        artefact: an ``.onnx`` file that the runtime can run here.
        threads: of the engine; None leaves the choice to it.

    Raises:
        CheckpointError, ArtefactError, BackendError, MissingExtraError: either side cannot be loaded.
    """
    model = checkpoint.load(checkpoint_path)
    backend = open_backend(artefact, threads=threads)
    try:
        cases = sample_cases(backend.metadata, *lemur())
        return ParityReport(
            checkpoint=checkpoint_path.name,
            artefact=artefact.name,
            same_checkpoint=backend.metadata.checkpoint_sha256 == checkpoint.sha256(checkpoint_path),
            gates=gates or Gates(),
            cases=measure(TorchBackend(model), backend, cases),
        )
    finally:
        backend.close()


def measure(reference: TorchBackend, backend: Backend, cases: Sequence[Case]) -> tuple[CaseResult, ...]:
    """Run every case through PyTorch on the whole image, and through the runtime on ``backend``."""
    alphas: dict[int, Floating] = {}
    results = []
    for case in cases:
        plan = Matting.from_backend(backend, tile=case.tile).plan(case.trimap)
        # Cases may share a picture and differ in the tile only.
        if id(case.trimap) not in alphas:
            alphas[id(case.trimap)] = whole(reference, case.image, case.trimap, plan)
        results.append(_measured(alphas[id(case.trimap)], backend, case, windows=len(plan.windows)))
    return tuple(results)


def whole(backend: Backend, image: UInt8, trimap: UInt8, plan: Plan) -> Floating:
    """Alpha of the whole image in one pass, floating H, W.

    Args:
        plan: tells the size to which the image is padded, by reflection, at the bottom and right. That is the
            next multiple of 32, but a frozen shape may want more, and what is there reaches into the image.
    """
    height, width = trimap.shape
    rows, columns = (0, plan.padded_height - height), (0, plan.padded_width - width)
    padded = np.pad(image, (rows, columns, (0, 0)), "reflect")
    hints = np.pad(trimap, (rows, columns), "reflect")
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


def sample_cases(metadata: ArtefactMetadata, image: UInt8, trimap: UInt8) -> list[Case]:
    """Cases cut out of one photograph: multiples of 32 and not, upright and lying, tiny, whole and tiled.

    Args:
        metadata: of the artefact; cuts are no larger than a frozen shape.
        image: uint8 H, W, 3 RGB.
        trimap: uint8 H, W: 0, 128, 255.
    """
    smallest_tile = 2 * metadata.context + 2 * metadata.stride
    most = metadata.static_shape[1:] if metadata.static_shape else trimap.shape
    cases = [Case(name, *_cut(image, trimap, min(h, most[0]), min(w, most[1]))) for name, h, w in _CUTS]
    if metadata.static_shape and min(most) < smallest_tile:
        return cases
    return [
        *cases,
        Case("photograph", image, trimap),
        Case("photo, tiled", image, trimap, smallest_tile),
    ]


def _cut(image: UInt8, trimap: UInt8, height: int, width: int) -> tuple[UInt8, UInt8]:
    """The cut of this size with the most unknown pixels; no larger than the picture."""
    unknown = trimaps.unknown(trimap).astype(np.int64)
    # Sums over every window of this size, from the integral image.
    total = np.pad(unknown.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    y, x = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
    part = slice(y, y + height), slice(x, x + width)
    return image[part], trimap[part]


def _measured(expected: Floating, backend: Backend, case: Case, *, windows: int) -> CaseResult:
    found = Matting.from_backend(backend, tile=case.tile)(case.image, case.trimap)
    return CaseResult(
        name=case.name,
        height=case.trimap.shape[0],
        width=case.trimap.shape[1],
        tile=case.tile,
        windows=windows,
        **compare(expected, found, case.trimap).model_dump(),
    )
