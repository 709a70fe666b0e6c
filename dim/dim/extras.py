"""Optional packages: an error that names the extra to install."""

from __future__ import annotations

from importlib import import_module

from dim.errors import MissingExtraError


def require(task: str, *packages: str, extra: str = "export") -> None:
    """Raise MissingExtraError for the first package that cannot be imported.

    Args:
        task: the action that needs the packages, for the error.
        packages: names of modules.
        extra: extra of this distribution that installs them.
    """
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(task, package=package, extra=extra, cause=error) from error
