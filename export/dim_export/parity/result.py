"""The result of a verification: differences of each case, and the gates that they pass or fail."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import computed_field

from dim.contract import Precision
from dim.errors import DimError
from dim.frozen_model import FrozenModel
from dim_export.parity.comparison import AgainstTruth, Difference, relative_shift
from dim_export.parity.gates import Gate, Judgement, Measure, judge
from dim_export.parity.other_tools import ToolResult


class ParityError(DimError):
    """The artefact does not compute the function of its checkpoint."""

    exit_code = 1


class PoolingCount(FrozenModel):
    """Number of 2×2 pooling windows over all channels and levels, and of those that differ from PyTorch's."""

    windows: int
    different: int


class CaseResult(Difference):
    """Differences between reference and artefact on one case."""

    name: str
    height: int
    width: int
    tile: int
    windows: int
    """Windows that the runtime planned; a tiled case has several."""
    ties: bool = False
    pooling: PoolingCount | None = None
    """None if it was not counted: the engine is not ONNX Runtime on the CPU, the image is too large for one
    pass, or the case only cuts another case's image into tiles."""
    against_float64: Difference | None = None
    """The artefact compared with PyTorch in float64; None unless that is requested."""
    truth: AgainstTruth | None = None


class ParityReport(FrozenModel):
    """The cases and gates of one artefact."""

    checkpoint: str
    artefact: str
    precision: Precision
    engine: str
    """Name and version of the inference engine."""
    device: str
    checkpoint_sha256: str
    recorded_sha256: str
    """SHA-256 of the checkpoint that the artefact's metadata names."""
    not_finite: tuple[str, ...] = ()
    """Tensors of the checkpoint and of the artefact that hold a NaN or an infinity."""
    gates: tuple[Gate, ...]
    cases: tuple[CaseResult, ...]
    left_out: tuple[str, ...] = ()
    """Names of the cases that do not fit the artefact's frozen shape."""
    node_outputs: int | None = None
    """Largest number of outputs of one node; None for an engine."""
    tools: tuple[ToolResult, ...] = ()
    """The artefact after other tools have rewritten it; empty if that was not requested."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same_checkpoint(self) -> bool:
        """Whether the artefact's metadata names this checkpoint file."""
        return self.checkpoint_sha256 == self.recorded_sha256

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_share_beyond(self) -> float:
        """Mean share of unknown pixels that differ by more than 1/255, over all cases but the tie image."""
        return _mean(case.share_beyond for case in self._judged)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean_sad_share(self) -> float:
        """Mean difference of an unknown pixel, averaged over all cases but the tie image."""
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
        """Mean gain of the cases that have one, without the tie image; None if no case has one."""
        found = [case.gain for case in self._judged if case.gain is not None]
        return _mean(found) if found else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def nan_pixels(self) -> int:
        """Unknown pixels of all cases that are NaN on either side."""
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
        """Every gate with its measured value; None if no case measured it."""
        ties = [case for case in self.cases if case.ties]
        compared = [tool for tool in self.tools if tool.difference is not None]
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
                Measure.NODE_OUTPUTS: self.node_outputs,
                Measure.REWRITTEN_KNOWN: sum(tool.changed_known for tool in compared) if compared else None,
                **{tool.measure: tool.found for tool in self.tools},
            },
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(judgement.passed for judgement in self.judgements)

    @property
    def _judged(self) -> list[CaseResult]:
        return [case for case in self.cases if not case.ties]


def require_passed(report: ParityReport) -> None:
    """Raise a ParityError that lists failed gates and non-finite tensors, unless all gates hold."""
    failed = [judgement for judgement in report.judgements if not judgement.passed]
    if not failed:
        return
    raise ParityError(
        f"refused to write {report.artefact}: it does not compute the function of its checkpoint",
        got="; ".join(f"{item.label}: {item.show(item.found or 0)}" for item in failed),
        expected="; ".join(f"at most {item.show(item.limit)}" for item in failed),
        why=f"NaN or infinity in {', '.join(report.not_finite)}" if report.not_finite else None,
        fix="report it; --no-verify writes the file nevertheless. Random weights pass in fp32 only: their "
        "pooling windows are too close to ties for less precision",
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0
