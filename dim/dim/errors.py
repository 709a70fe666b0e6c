"""Errors in four parts: what could not be done; got and expected; why, if known; what to do about it."""

from __future__ import annotations


class DimError(Exception):
    """Base of every error that the toolkit raises on purpose.

    ``exit_code`` is what the command-line tools leave with: 2 for wrong use or bad input, 1 for a gate or
    an item that failed.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        why: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem, self.got, self.expected, self.why, self.fix = problem, got, expected, why, fix
        super().__init__(self._text())

    def _text(self) -> str:
        parts = (("got", self.got), ("expected", self.expected), ("why", self.why), ("fix", self.fix))
        return "\n".join([self.problem, *(f"  {name}: {text}" for name, text in parts if text is not None)])


class InputError(DimError, ValueError):
    """An image, trimap, alpha or option that cannot be used as it is."""


class CheckpointError(DimError):
    """A checkpoint that cannot be read, or that is not the network it is wanted for."""


class MissingExtraError(DimError, ImportError):
    """An optional dependency that the requested work needs is not installed."""

    def __init__(self, task: str, *, package: str, extra: str) -> None:
        super().__init__(
            f"cannot {task}: the package {package!r} is not installed",
            fix=f'pip install "dim-matting[{extra}]"   (from a checkout: pip install -e ".[{extra}]")',
        )
