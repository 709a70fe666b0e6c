"""What was found of one artefact, case by case, and whether that is good enough."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import computed_field

from dim.contract import Precision
from dim.errors import DimError
from dim.frozen_model import FrozenModel
from dim_export.parity.comparison import AgainstTruth, Difference, relative_shift
from dim_export.parity.gates import Gate, Judgement, Measure, judge


class ParityError(DimError):
    """An artefact that does not compute what its checkpoint computes."""

    exit_code = 1


class PoolingCount(FrozenModel):
    """2×2 pooling windows over all channels and levels, and how many chose another value than PyTorch's."""

    windows: int
    different: int


class CaseResult(Difference):
    """Reference against artefact on one case."""

    name: str
    height: int
    width: int
    tile: int
    windows: int
    """Windows that the runtime planned; a tiled case has several."""
    ties: bool = False
    pooling: PoolingCount | None = None
    """None where it was not counted: another engine than ONNX Runtime on the CPU, an image too large for one
    pass, or a case that only cuts another one's image into tiles."""
    against_float64: Difference | None = None
    """The artefact against PyTorch in float64; None unless asked for."""
    truth: AgainstTruth | None = None


class ParityReport(FrozenModel):
    """All cases of one artefact."""

    checkpoint: str
    artefact: str
    precision: Precision
    engine: str
    """Name and version of what ran it."""
    device: str
    checkpoint_sha256: str
    recorded_sha256: str
    """Of the checkpoint that the artefact says it was made from."""
    not_finite: tuple[str, ...] = ()
    """Tensors of the checkpoint and of the artefact that hold a NaN or an infinity."""
    gates: tuple[Gate, ...]
    cases: tuple[CaseResult, ...]
    left_out: tuple[str, ...] = ()
    """Pictures that the artefact's frozen shape cannot take."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same_checkpoint(self) -> bool:
        """Whether the artefact says that it was made from this very file."""
        return self.checkpoint_sha256 == self.recorded_sha256

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_share_beyond(self) -> float:
        return _mean(case.share_beyond for case in self._judged)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_sad_share(self) -> float:
        return _mean(case.mean_difference for case in self._judged)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pooled_difference(self) -> float:
        """SAD of the difference over (unknown pixels / 1000), all cases but the tie image together."""
        unknown = sum(case.unknown_pixels for case in self._judged)
        return 1000 * math.fsum(case.sad for case in self._judged) / unknown if unknown else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gain(self) -> float | None:
        """Mean over the cases that have one, but for the tie image; None if none has."""
        found = [case.gain for case in self._judged if case.gain is not None]
        return _mean(found) if found else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def nan_pixels(self) -> int:
        return sum(case.nan_pixels for case in self.cases)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sad_shift(self) -> float | None:
        """Mean SAD against the truth over PyTorch's, minus 1; None without truth."""
        scored = [case.truth for case in self.cases if case.truth is not None]
        before = math.fsum(truth.reference.sad for truth in scored)
        after = math.fsum(truth.artefact.sad for truth in scored)
        return relative_shift(before, after) if scored else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """Every gate with what was found for it; what no case measured is None."""
        ties = [case for case in self.cases if case.ties]
        return judge(
            self.gates,
            {
                Measure.NOT_FINITE: len(self.not_finite) + self.nan_pixels,
                Measure.SHARE_BEYOND: self.mean_share_beyond,
                Measure.MEAN_DIFFERENCE: self.mean_sad_share,
                Measure.POOLED_DIFFERENCE: self.pooled_difference,
                Measure.GAIN: None if self.gain is None else abs(self.gain - 1),
                Measure.TIES: _mean(case.share_beyond for case in ties) if ties else None,
                Measure.TIES_DIFFERENCE: _mean(case.mean_difference for case in ties) if ties else None,
                Measure.SAD_SHIFT: self.sad_shift,
            },
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        return all(judgement.passed for judgement in self.judgements)

    @property
    def _judged(self) -> list[CaseResult]:
        return [case for case in self.cases if not case.ties]


def require_passed(report: ParityReport) -> None:
    """ParityError, which lists failed gates and tensors that are not finite, unless all gates hold."""
    failed = [judgement for judgement in report.judgements if not judgement.passed]
    if not failed:
        return
    raise ParityError(
        f"refused to write {report.artefact}: it does not compute what its checkpoint computes",
        got="; ".join(f"{item.label}: {item.show(item.found or 0)}" for item in failed),
        expected="; ".join(f"at most {item.show(item.limit)}" for item in failed),
        why=f"not finite: {', '.join(report.not_finite)}" if report.not_finite else None,
        fix="report it; --no-verify writes the file all the same. Random weights pass in fp32 only: their "
        "pooling choices are too close to call in less",
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0
