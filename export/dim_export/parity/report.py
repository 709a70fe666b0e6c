"""Everything that a release manager signs: artefacts against their checkpoint, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pydantic import computed_field

from dim.contract import NetworkConfig
from dim.files import sha256
from dim.frozen_model import FrozenModel
from dim_export.measure.environment import Environment, environment
from dim_export.measure.opened import OpenedArtefact
from dim_export.measure.timing import alternate, own_window, times_faster
from dim_export.parity.cases import pictures
from dim_export.parity.comparison import Difference, compare
from dim_export.parity.heat_map import Snapshot
from dim_export.parity.reference import Reference
from dim_export.parity.result import ParityReport
from dim_export.parity.verify import Examination

SCHEMA_VERSION = 1

Tell = Callable[[str], None]
"""Called with what begins."""


class Speed(FrozenModel):
    """One window in one artefact, timed in turn with the others."""

    height: int
    width: int
    runs_s: tuple[float, ...]
    times_faster: float
    """Than the first artefact, pixel for pixel; 1 for the first."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        return median(self.runs_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def megapixels_per_s(self) -> float:
        return self.height * self.width / 1e6 / self.p50_s


class Worst(FrozenModel):
    """Where an artefact differs most from PyTorch; its picture is in the HTML report."""

    case: str
    y: int
    x: int
    height: int
    width: int
    max_difference: float


class ArtefactReport(FrozenModel):
    """One artefact: the file, whether it passed, how large and fast it is."""

    bytes: int
    sha256: str
    command: str
    """The command that made the file, as the file has it."""
    parity: ParityReport
    worst: Worst | None
    speed: Speed | None
    """None where nothing was timed."""


class RoundingResult(Difference):
    """PyTorch in float32 against PyTorch in float64 on one case: what rounding alone does."""

    name: str


class ReleaseReport(FrozenModel):
    """The document ``report.json``."""

    schema_version: int = SCHEMA_VERSION
    made_at: str
    """UTC, ISO 8601."""
    command: str
    environment: Environment
    checkpoint: str
    checkpoint_sha256: str
    network: NetworkConfig
    artefacts: tuple[ArtefactReport, ...]
    rounding: tuple[RoundingResult, ...] = ()
    """Empty unless float64 was asked for."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        return all(artefact.parity.passed for artefact in self.artefacts)


class Release(NamedTuple):
    """The report, and the worst window of each artefact in its order."""

    report: ReleaseReport
    snapshots: tuple[Snapshot | None, ...]


def examine(
    checkpoint: Path,
    engines: Sequence[OpenedArtefact],
    *,
    folder: Path | None = None,
    float64: bool = False,
    runs: int = 5,
    command: str = "",
    tell: Tell = lambda text: None,
) -> Release:
    """Measure opened artefacts against a checkpoint.

    Args:
        engines: at least one; the caller closes them.
        folder: of pairs, with or without truth; see :func:`dim_export.parity.cases.pictures`.
        float64: also compare with PyTorch in float64.
        runs: timed runs of one window in each artefact; 0 times nothing.
        command: recorded in the report.
        tell: hears what is being done.

    Raises:
        CheckpointError, InputError, BackendError: something cannot be read or run.
    """
    reference = Reference(checkpoint, float64=float64)
    examinations = [Examination(engine, reference) for engine in engines]
    rounding: list[RoundingResult] = []
    for picture in pictures(folder):
        for examination in examinations:
            tell(f"{picture.name}: {examination.engine.path.name}")
            examination.look_at(picture)
        rounding += _rounding(reference)
        reference.forget()
    tell("timing")
    speeds = _speeds(engines, runs)
    return Release(
        ReleaseReport(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            environment=environment(engines[0].threads),
            checkpoint=checkpoint.name,
            checkpoint_sha256=reference.sha256,
            network=reference.config,
            artefacts=tuple(
                _artefact(examination, checkpoint, speed)
                for examination, speed in zip(examinations, speeds, strict=True)
            ),
            rounding=tuple(rounding),
        ),
        tuple(examination.worst for examination in examinations),
    )


def _rounding(reference: Reference) -> list[RoundingResult]:
    return [
        RoundingResult(name=case.name, **compare(expected.float64, expected.alpha, case.trimap).model_dump())
        for case, expected in reference.answers
        if expected.float64 is not None
    ]


def _artefact(examination: Examination, checkpoint: Path, speed: Speed | None) -> ArtefactReport:
    path = examination.engine.path
    return ArtefactReport(
        bytes=path.stat().st_size,
        sha256=sha256(path),
        command=examination.engine.backend.metadata.command,
        parity=examination.report(checkpoint),
        worst=None if examination.worst is None else _worst(examination.worst),
        speed=speed,
    )


def _worst(snapshot: Snapshot) -> Worst:
    height, width = snapshot.trimap.shape
    top = float(snapshot.difference.max())
    return Worst(
        case=snapshot.case, y=snapshot.y, x=snapshot.x, height=height, width=width, max_difference=top
    )


def _speeds(engines: Sequence[OpenedArtefact], runs: int) -> list[Speed | None]:
    if runs == 0:
        return [None] * len(engines)
    backends = [engine.backend for engine in engines]
    windows = [own_window(backend) for backend in backends]
    times = alternate(backends, windows, runs)
    return [
        Speed(
            height=window.trimap.shape[1],
            width=window.trimap.shape[2],
            runs_s=tuple(seconds),
            times_faster=times_faster(times[0], seconds, work=window.trimap.size / windows[0].trimap.size),
        )
        for window, seconds in zip(windows, times, strict=True)
    ]
