"""The report of a release: artefacts compared with their checkpoint, side by side, to be signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pydantic import computed_field

from dim.arrays import Floating
from dim.contract import NetworkConfig
from dim.files import sha256
from dim.frozen_model import FrozenModel
from dim_export.measure.environment import Environment, environment
from dim_export.measure.opened import OpenedArtefact
from dim_export.measure.timing import alternate, own_window, times_faster
from dim_export.parity.cases import Case, pictures
from dim_export.parity.comparison import Difference, compare
from dim_export.parity.heat_map import Snapshot, worst_window
from dim_export.parity.reference import Reference
from dim_export.parity.result import ParityReport
from dim_export.parity.verify import Examination

SCHEMA_VERSION = 1

Announce = Callable[[str], object]
"""Called with the name of each step when it begins."""


class Speed(FrozenModel):
    """Times of one window in one artefact, measured in alternation with the other artefacts."""

    height: int
    width: int
    runs_s: tuple[float, ...]
    """Seconds of each run."""
    times_faster: float
    """The first artefact's time per pixel over this one's; 1 for the first."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        """Median of the runs, seconds."""
        return median(self.runs_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def megapixels_per_s(self) -> float:
        """Throughput at the median."""
        return self.height * self.width / 1e6 / self.p50_s


class Worst(FrozenModel):
    """Position of the window in which an artefact differs most from PyTorch; the HTML report shows it."""

    case: str
    y: int
    x: int
    height: int
    width: int
    max_difference: float


class ArtefactReport(FrozenModel):
    """One artefact: file, verdict, size and speed."""

    bytes: int
    sha256: str
    command: str
    """The command that made the file, from its metadata."""
    parity: ParityReport
    worst: Worst | None
    speed: Speed | None
    """None if nothing was timed."""


class RoundingResult(Difference):
    """Differences of PyTorch in float32 from PyTorch in float64 on one case: the effect of rounding alone."""

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
    """Empty unless float64 was requested."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether all artefacts passed all gates."""
        return all(artefact.parity.passed for artefact in self.artefacts)


class Release(NamedTuple):
    """The report, and the worst window of each artefact in the same order."""

    report: ReleaseReport
    snapshots: tuple[Snapshot | None, ...]


def examine(
    checkpoint: Path,
    artefacts: Sequence[OpenedArtefact],
    *,
    folder: Path | None = None,
    float64: bool = False,
    runs: int = 5,
    command: str = "",
    announce: Announce = lambda text: None,
) -> Release:
    """Compare opened artefacts with a checkpoint, and time them.

    Args:
        checkpoint: a checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        artefacts: at least one; the caller closes them.
        folder: folder of pairs, with or without truth; see :func:`dim_export.parity.cases.pictures`.
        float64: also compare with PyTorch in float64.
        runs: timed runs of one window in each artefact; 0 times nothing.
        command: recorded in the report.
        announce: called before each step.

    Raises:
        CheckpointError, InputError, BackendError: a file cannot be read or run.
    """
    reference = Reference(checkpoint, float64=float64)
    worst = [_WorstWindow() for _ in artefacts]
    examinations = [
        Examination(artefact, reference, window.observe)
        for artefact, window in zip(artefacts, worst, strict=True)
    ]
    rounding: list[RoundingResult] = []
    for picture in pictures(folder):
        for examination in examinations:
            announce(f"{picture.sample.name}: {examination.artefact.path.name}")
            examination.look_at(picture)
        rounding += _rounding(reference)
        reference.forget()
    for examination in examinations:
        announce(f"other tools: {examination.artefact.path.name}")
        examination.rewrite()
    announce("timing")
    speeds = _speeds(artefacts, runs)
    snapshots = tuple(window.snapshot for window in worst)
    return Release(
        ReleaseReport(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            environment=environment(artefacts[0].threads),
            checkpoint=checkpoint.name,
            checkpoint_sha256=reference.sha256,
            network=reference.config,
            artefacts=tuple(
                _artefact(examination, checkpoint, snapshot, speed)
                for examination, snapshot, speed in zip(examinations, snapshots, speeds, strict=True)
            ),
            rounding=tuple(rounding),
        ),
        snapshots,
    )


class _WorstWindow:
    """Observes cases and keeps the window with the largest sum of differences, the tie image excepted.

    Attributes:
        snapshot: that window; None before the first case.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def observe(self, case: Case, reference: Floating, found: Floating) -> None:
        if case.ties:
            return
        snapshot = worst_window(case.sample, reference, found)
        if self.snapshot is None or snapshot.total > self.snapshot.total:
            self.snapshot = snapshot


def _rounding(reference: Reference) -> list[RoundingResult]:
    return [
        RoundingResult(
            name=case.sample.name,
            **compare(expected.float64, expected.alpha, case.sample.trimap).model_dump(),
        )
        for case, expected in reference.results
        if expected.float64 is not None
    ]


def _artefact(
    examination: Examination, checkpoint: Path, snapshot: Snapshot | None, speed: Speed | None
) -> ArtefactReport:
    path = examination.artefact.path
    return ArtefactReport(
        bytes=path.stat().st_size,
        sha256=sha256(path),
        command=examination.artefact.backend.metadata.command,
        parity=examination.report(checkpoint),
        worst=None if snapshot is None else _worst(snapshot),
        speed=speed,
    )


def _worst(snapshot: Snapshot) -> Worst:
    height, width = snapshot.trimap.shape
    top = float(snapshot.difference.max())
    return Worst(
        case=snapshot.case, y=snapshot.y, x=snapshot.x, height=height, width=width, max_difference=top
    )


def _speeds(artefacts: Sequence[OpenedArtefact], runs: int) -> list[Speed | None]:
    if runs == 0:
        return [None] * len(artefacts)
    backends = [artefact.backend for artefact in artefacts]
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
