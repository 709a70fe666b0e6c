"""The gates of every precision: complete, with reasons, and a NaN never passes."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from dim.contract import Precision
from dim_export.parity.gates import LABELS, Gate, Measure, gates_for, judge


@pytest.mark.parametrize("precision", get_args(Precision))
def test_every_precision_has_gates_with_reasons(precision: Precision) -> None:
    gates = gates_for(precision)
    measures = {gate.measure for gate in gates}
    assert {Measure.NOT_FINITE, Measure.SAD_SHIFT} < measures
    assert len(measures) == len(gates)
    assert all(len(gate.reason) > 20 for gate in gates)
    assert all(gate.measure in LABELS for gate in gates)


def test_no_gate_looks_at_gray_levels_in_low_precision() -> None:
    for precision in ("fp16", "bf16", "int8"):
        measures = {gate.measure for gate in gates_for(precision)}
        assert not measures & {Measure.SHARE_BEYOND, Measure.TIES}


def test_limits_loosen_with_the_precision() -> None:
    def limit(precision: Precision, measure: Measure) -> float:
        return next(gate.limit for gate in gates_for(precision) if gate.measure is measure)

    pooled = [limit(precision, Measure.POOLED_DIFFERENCE) for precision in ("fp16", "bf16", "int8")]
    assert pooled == sorted(pooled)
    # What was promised of the dev photographs.
    shifts = [limit(precision, Measure.SAD_SHIFT) for precision in ("fp16", "bf16", "int8")]
    assert shifts == [0.01, 0.01, 0.05]


@pytest.mark.parametrize(
    ("found", "passed"),
    [(0.1, True), (0.2, True), (0.21, False), (-1.0, True), (None, True), (math.nan, False)],
)
def test_a_limit_is_an_upper_one_and_nan_fails(found: float | None, passed: bool) -> None:
    gate = Gate(measure=Measure.SAD_SHIFT, limit=0.2, reason="a test")
    (judgement,) = judge((gate,), {Measure.SAD_SHIFT: found})
    assert judgement.passed is passed


def test_what_was_not_measured_is_not_judged() -> None:
    (judgement,) = judge((Gate(measure=Measure.SAD_SHIFT, limit=0, reason="a test"),), {})
    assert judgement.found is None
    assert judgement.passed
