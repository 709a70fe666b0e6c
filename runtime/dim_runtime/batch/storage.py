"""Files by name, on this machine or in an object store (``s3://…``, ``gs://…``, whatever fsspec knows).

fsspec is imported only for a name with a scheme. An object store shows an object when all of it is there; a
local file is the business of whoever writes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dim.errors import InputError, MissingExtraError

FILE_SCHEME = "file://"


def is_remote(name: str) -> bool:
    """Whether the name has a scheme other than ``file://``."""
    return "://" in name and not name.startswith(FILE_SCHEME)


def local(name: str) -> Path:
    """The path of a name that is not remote."""
    return Path(name.removeprefix(FILE_SCHEME))


def join(folder: str, name: str) -> str:
    """A name inside a folder; a name with a scheme, or an absolute path, stays as it is."""
    if "://" in name:
        return name
    if is_remote(folder):
        return name if Path(name).is_absolute() else f"{folder.rstrip('/')}/{name}"
    return str(local(folder) / name)


def existing(folder: str, names: Iterable[str]) -> set[str]:
    """Which of these names, relative to the folder, are there. A remote folder is listed once."""
    if not is_remote(folder):
        return {name for name in names if Path(join(folder, name)).exists()}
    with _explained("list", folder):
        system, root = _located(folder)
        found = set(system.find(root))
        return {name for name in names if f"{root}/{name}" in found}


def identity(name: str) -> str:
    """A text that changes when the file does: size and time of change, or what the store has for them.

    Raises:
        InputError: no such file.
    """
    with _explained("read", name):
        if is_remote(name):
            system, path = _located(name)
            return str(system.ukey(path))
        found = local(name).stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


@contextmanager
def readable(name: str) -> Iterator[Path]:
    """A local path to read from: the file itself, or a copy that is removed afterwards."""
    if not is_remote(name):
        yield local(name)
        return
    with tempfile.TemporaryDirectory(prefix="dim-") as folder:
        copy = Path(folder) / _last(name)
        with _explained("read", name):
            system, path = _located(name)
            system.get_file(path, str(copy))
        yield copy


@contextmanager
def writable(name: str) -> Iterator[Path]:
    """A local path to write to: the file itself, or one that is put into the store if nothing goes wrong."""
    if not is_remote(name):
        yield local(name)
        return
    with tempfile.TemporaryDirectory(prefix="dim-") as folder:
        copy = Path(folder) / _last(name)
        yield copy
        with _explained("write", name):
            system, path = _located(name)
            system.put_file(str(copy), path)


def names_in(folder: str) -> list[str]:
    """The files of a remote folder, sorted; none if it is not there."""
    with _explained("list", folder):
        system, root = _located(folder)
        found = system.ls(root, detail=False) if system.exists(root) else []
        return sorted(join(folder, _last(name)) for name in found)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _located(name: str) -> tuple[Any, str]:
    """The store's client, and what it calls this file."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(f"reach {name}", package="fsspec", extra="ray") from error
    system, path = url_to_fs(name)
    return system, str(path)


@contextmanager
def _explained(action: str, name: str) -> Iterator[None]:
    """Whatever a store's client raises becomes an error that names the file."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot {action} {name}", got="no such file") from error
    except ImportError as error:
        raise InputError(f"cannot {action} {name}", why=str(error), fix="install that package") from error
    except Exception as error:
        raise InputError(f"cannot {action} {name}", why=f"{type(error).__name__}: {error}") from error
