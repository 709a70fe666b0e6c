"""What the commands share: packages that a task needs, and files that are complete or not there."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from dim.errors import InputError, MissingExtraError


def require(task: str, *packages: str, extra: str = "export") -> None:
    """MissingExtraError, which names the extra, for the first package that cannot be imported."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(task, package=package, extra=extra) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 under a temporary name and rename it; the folder is made. InputError if it cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}", why=error.strerror or str(error)) from error
    finally:
        if temporary.is_file():
            temporary.unlink()
