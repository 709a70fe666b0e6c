"""Files by name, on this machine or in an object store (``s3://…``, ``gs://…`` and others of fsspec).

fsspec is imported only for a name with a scheme. An object store shows an object when all of it is there;
callers make local writes atomic.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dim.errors import InputError, MissingExtraError
from dim.files import os_errors

FILE_SCHEME = "file://"


def is_remote(name: str) -> bool:
    """Return whether the name has a scheme other than ``file://``."""
    return "://" in name and not name.startswith(FILE_SCHEME)


def local(name: str) -> Path:
    """Return the path of a name that is not remote."""
    return Path(name.removeprefix(FILE_SCHEME))


def join(folder: str, name: str) -> str:
    """Join a folder and a name; a name with a scheme, or an absolute path, is returned unchanged."""
    if "://" in name:
        return name
    if is_remote(folder):
        return name if Path(name).is_absolute() else f"{folder.rstrip('/')}/{name}"
    return str(local(folder) / name)


def existing(folder: str, names: Iterable[str]) -> dict[str, int | None]:
    """Return the sizes in bytes of the files that exist, by their names relative to the folder.

    A remote folder is listed once; the size is None if its store does not state it.
    """
    if not is_remote(folder):
        sizes = ((name, _local_size(local(join(folder, name)))) for name in names)
        return {name: size for name, size in sizes if size is not None}
    with _explained("list", folder):
        system, root = _located(folder)
        found = system.find(root, detail=True)
        there = [name for name in names if f"{root}/{name}" in found]
        return {name: found[f"{root}/{name}"].get("size") for name in there}


def _local_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        # Also a name that is too long, or that no file can have.
        return None


def file_key(folder: str) -> Callable[[str], str]:
    """Return a function whose value is equal for two names that are one file in this folder.

    Some file systems fold case, or the normal forms of Unicode. It is tried with two temporary files in the
    folder, which is made.
    """
    if is_remote(folder):
        return str
    place = local(folder)
    with os_errors(place):
        folds_case = _is_one_file(place, "dim-\u00e4", "DIM-\u00c4")
        folds_forms = _is_one_file(place, "dim-\u00e4", "dim-a\u0308")

    def key(name: str) -> str:
        form = unicodedata.normalize("NFC", name) if folds_forms else name
        form = form.replace("\\", "/") if os.sep == "\\" else form
        return form.casefold() if folds_case else form

    return key


def _is_one_file(folder: Path, first: str, second: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dim-", dir=folder) as trial:
        (Path(trial) / first).touch()
        return (Path(trial) / second).exists()


def identity(name: str) -> str:
    """Return a text that changes with the file: size and time of change, or the object's tag in its store.

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
    """Yield a local path to read from: the file itself, or a copy that is removed afterwards."""
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
    """Yield a local path to write to: the file itself, or one that is uploaded if no error occurs."""
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
    """Return the files of a remote folder, sorted; none if it does not exist."""
    with _explained("list", folder):
        system, root = _located(folder)
        found = system.ls(root, detail=False) if system.exists(root) else []
        return sorted(join(folder, _last(name)) for name in found)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _located(name: str) -> tuple[Any, str]:
    """Return the store's client, and its name of this file."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(f"reach {name}", package="fsspec", extra="ray", cause=error) from error
    system, path = url_to_fs(name)
    return system, str(path)


@contextmanager
def _explained(action: str, name: str) -> Iterator[None]:
    """Raise any error of a store's client as an InputError that names the file."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot {action} {name}", got="no such file") from error
    except ImportError as error:
        raise InputError(f"cannot {action} {name}", why=str(error), fix="install that package") from error
    except Exception as error:  # each object store has its own
        raise InputError(f"cannot {action} {name}", why=f"{type(error).__name__}: {error}") from error
