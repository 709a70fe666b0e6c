"""Errors in four parts: the problem, got and expected, the reason if known, and how to fix it."""

from __future__ import annotations


class DimError(Exception):
    """Base class of the errors that the toolkit raises.

    Args:
        problem: the action that failed, and its object.
        got: the value that was found.
        expected: the values that are accepted.
        why: the reason, if known.
        fix: a command or change that helps.

    ``exit_code`` is the exit code of the command-line tools: 2 for wrong use or bad input, 1 for a gate or an
    item that failed.
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
    """A checkpoint that cannot be read, or that is not the expected network."""


class MissingExtraError(DimError, ImportError):
    """An optional dependency that the requested work needs is not installed, or does not load.

    Args:
        task: the action that needs it.
        package: its name.
        extra: extra of this distribution that installs it.
        cause: the error of importing it; its text is the reason unless the package is not there.
    """

    def __init__(self, task: str, *, package: str, extra: str, cause: ImportError | None = None) -> None:
        is_absent = cause is None or isinstance(cause, ModuleNotFoundError)
        super().__init__(
            f"cannot {task}: the package {package!r} {'is not installed' if is_absent else 'does not load'}",
            why=None if cause is None else str(cause),
            fix=install_command(extra),
        )


def install_command(extra: str) -> str:
    """Return the commands that install an extra: from an index, and from a clone of the repository."""
    return f'pip install "dim-matting[{extra}]"   (from a checkout: pip install -e ".[{extra}]")'


class ProfileWarning(UserWarning):
    """An ICC profile that a result does not carry, or that does not fit the other picture of a composite."""
