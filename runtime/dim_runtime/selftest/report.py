"""The report of a self-test: one line for each check, as a table for people and as JSON to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import groupby
from time import perf_counter

from pydantic import Field

from dim.errors import DimError
from dim.frozen_model import FrozenModel

Value = bool | int | float | str | None


class Verdict(StrEnum):
    """Result of one check.

    Attributes:
        PASSED: as expected.
        FAILED: not as expected; the check's ``fix`` is the next step.
        SKIPPED: does not apply here; ``found`` is the reason.
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(FrozenModel):
    """One line of the report.

    Attributes:
        part: "machine", or the back end.
        name: of the check.
        found: what was measured, or the error.
        expected: what passes; None for a measurement that has no limit.
        fix: what to do about a failure.
        values: the measurements behind ``found``.
    """

    part: str
    name: str
    verdict: Verdict
    found: str
    expected: str | None = None
    fix: str | None = None
    values: dict[str, Value] = Field(default_factory=dict)
    seconds: float = 0.0


class Report(FrozenModel):
    """A self-test from the machine to the last back end."""

    schema_version: int = 1
    device: str
    machine: dict[str, Value]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one back end opened and no check failed."""
        failed = any(check.verdict is Verdict.FAILED for check in self.checks)
        opened = any(check.name == "opens" and check.verdict is Verdict.PASSED for check in self.checks)
        return opened and not failed

    def table(self) -> str:
        """Return the report as text: a line for each check, and below a failed one what to do.

        Checks of one back end that are skipped for one reason share a line.
        """
        rows: list[str] = []
        for _, group in groupby(self.checks, key=_same_line):
            checks = list(group)
            if len(checks) > 1 and checks[0].verdict is Verdict.SKIPPED:
                rows.append(line(checks[0].model_copy(update={"name": f"{len(checks)} checks"})))
            else:
                rows += [line(check) for check in checks]
        return "\n".join([*rows, "", self.summary()])

    def summary(self) -> str:
        """Return the number of checks with each verdict."""
        counts = Counter(check.verdict for check in self.checks)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)


def _same_line(check: Check) -> tuple[str, Verdict, str]:
    return check.part, check.verdict, check.found


def line(check: Check) -> str:
    """Return one check as text."""
    text = f"{check.verdict:8}{check.part:17}{check.name:11}{check.found}"
    if check.verdict is not Verdict.FAILED:
        return text
    rest = (("expected", check.expected), ("fix", check.fix))
    return "\n".join([text, *(f"{'':36}{name}: {value}" for name, value in rest if value is not None)])


class Outcome:
    """Findings of a check so far; filled inside :meth:`Recorder.checked`."""

    def __init__(self) -> None:
        self.verdict = Verdict.PASSED
        self.found = ""
        self.expected: str | None = None
        self.fix: str | None = None
        self.values: dict[str, Value] = {}

    def passed(self, found: str, **values: Value) -> None:
        """Record a measurement, as expected or without a limit."""
        self.found, self.values = found, values

    def require(self, good: bool, found: str, *, expected: str, fix: str, **values: Value) -> None:
        """Record a measurement that passes where ``good``."""
        self.verdict = Verdict.PASSED if good else Verdict.FAILED
        self.found, self.expected, self.fix, self.values = found, expected, fix, values

    def skip(self, reason: str) -> None:
        """Record that the check does not apply here."""
        self.verdict, self.found = Verdict.SKIPPED, reason


class Recorder:
    """Collects checks, and turns an exception inside one into its failure."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.checks: list[Check] = []

    @contextmanager
    def checked(self, name: str, fix: str) -> Iterator[Outcome]:
        """Yield the outcome of a check; an exception is a failure with ``fix``, if it brings no own."""
        outcome, started = Outcome(), perf_counter()
        try:
            yield outcome
        except Exception as error:
            own = error.fix if isinstance(error, DimError) else None
            outcome.require(False, _described(error), expected="no error", fix=own or fix)
        self.checks.append(
            Check(
                part=self.part,
                name=name,
                verdict=outcome.verdict,
                found=outcome.found,
                expected=outcome.expected,
                fix=outcome.fix,
                values=outcome.values,
                seconds=round(perf_counter() - started, 3),
            )
        )


def _described(error: Exception) -> str:
    """Return an error on one line, without our fix, which the report shows on its own line."""
    parts: list[object] = [error.problem, error.got, error.why] if isinstance(error, DimError) else [error]
    text = "; ".join(str(part) for part in parts if part is not None)
    return f"{type(error).__name__}: {' '.join(text.split())}"
