"""Packages that only one task needs: imported, or an error that names the extra."""

from __future__ import annotations

from importlib import import_module

from dim.errors import MissingExtraError


def require(task: str, *packages: str, extra: str = "export") -> None:
    """MissingExtraError, which names the extra, for the first package that cannot be imported."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(task, package=package, extra=extra) from error
