"""Files and folders that are complete or not there: written under a temporary name, then renamed.

A temporary name is ``.KEY-RANDOM.partial`` with the target's suffix. KEY is a hash of the target's name:
:func:`remove_leftovers` finds what a killed process left, and the length does not depend on the target's
name, which may be as long as the file system allows. RANDOM is new for each call, so that two threads,
processes or machines that share the folder never write the same temporary file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dim.errors import InputError

_LEFTOVER = re.compile(r"\.([0-9a-f]{12})-[0-9a-f]{8}\.partial(?:\..*)?")
_LONGEST_SUFFIX = 16
"""Bytes of a suffix that a temporary name repeats, because some libraries choose the format by it."""
_FIXES = {
    errno.ENOSPC: "free some disk space, or choose another place",
    errno.EDQUOT: "free some of the disk quota, or choose another place",
    errno.EACCES: "check the permissions of the folder, or choose another place",
    errno.EPERM: "check the permissions of the folder, or choose another place",
    errno.EROFS: "choose a place that is not read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename the file to ``path`` at the end.

    The folder is made. An exception inside leaves no temporary file, and an older ``path`` as it was.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    with os_errors(path), scratch_file(path) as temporary:
        _require_replaceable(path)
        yield temporary
        os.replace(temporary, path)


@contextmanager
def scratch_file(beside: str | Path) -> Iterator[Path]:
    """Yield the path of a temporary file in the folder of ``beside``, which is made; remove it at the end."""
    temporary = temporary_path(beside)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    finally:
        # After a rename there is nothing left to remove.
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file or none; InputError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file or none, line ends as given; InputError if it cannot be written.

    File names in the text that are not UTF-8 are written as the bytes that they have on the disk.
    """
    write_bytes(path, text.encode(errors="surrogateescape"))


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces ``folder`` at the end.

    An exception inside leaves no temporary folder, and an older ``folder`` as it was. If the process is
    killed during the replacement, the old folder or the new one is whole: see :func:`current_folder`.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    with os_errors(folder), scratch_folder(folder) as new:
        yield new
        put_folder(new, folder)


@contextmanager
def scratch_folder(beside: str | Path) -> Iterator[Path]:
    """Yield a new temporary folder in the parent of ``beside``; remove it, with all it holds, at the end."""
    temporary = temporary_path(beside)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_folder(new: Path, folder: Path, *, aside: Path | None = None) -> None:
    """Rename ``new`` to ``folder``; an older ``folder`` is removed afterwards.

    Args:
        aside: where the older folder lies between the two renames; None for a hidden name beside it.
    """
    aside = aside or _aside(folder)
    # A folder cannot be renamed over another one, so that the old one has to step aside first.
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    try:
        os.replace(new, folder)
    except OSError:
        if aside.exists():
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def current_folder(folder: str | Path) -> Path | None:
    """Return the folder, the old one if a replacement was killed between its two renames, or None."""
    return next(iter(folder_versions(folder)), None)


def folder_versions(folder: str | Path) -> list[Path]:
    """Return the folder, and the old one that a killed replacement left; only those that exist."""
    folder = Path(folder)
    return [found for found in (folder, _aside(folder)) if found.is_dir()]


def remove_leftovers(folder: str | Path, names: Collection[str] | None = None) -> None:
    """Remove temporary files and folders that killed processes left in a folder.

    Args:
        names: names of the files that were being written; None for all in this folder. No other process may
            be writing them now.
    """
    keys = None if names is None else {_key(name) for name in names}
    for path in Path(folder).glob(".*.partial*"):
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or not (keys is None or found[1] in keys):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Make the folder of a file; InputError, before any work is done, if the file cannot be written there."""
    path = Path(path)
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_replaceable(path)
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}", got="a protected folder", fix=_FIXES[errno.EACCES])


def require_no_input(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise InputError if an output is the same file as one of the inputs, under whatever name."""
    identities = {_identity(path) for path in inputs} - {None}
    for path in outputs:
        if _identity(path) in identities:
            raise InputError(
                f"cannot write {path}: it is one of the inputs",
                why="the input would be replaced",
                fix="choose another name, or another folder, for the output",
            )


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Return device and number of an existing file; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def temporary_path(path: str | Path) -> Path:
    """Return a new temporary path beside ``path``, with its suffix; nothing is made."""
    path = Path(path)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    return path.parent / f".{_key(path.name)}-{os.urandom(4).hex()}.partial{suffix}"


def resumable_path(path: str | Path) -> Path:
    """Return the one temporary path at which an interrupted transfer to ``path`` may be continued."""
    path = Path(path)
    return path.parent / f".{_key(path.name)}.partial"


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}", why=error.strerror or str(error)) from error


def _key(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def _aside(folder: Path) -> Path:
    return folder.parent / f".{_key(folder.name)}.old"


def problem_of(path: Path) -> str | None:
    """Return why a path does not name a regular file, as an error's ``got``; None if it does.

    ``Path.is_file`` raises the system's errors, such as the one for a name that is too long.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if stat.S_ISREG(mode):
        return None
    return "a folder" if stat.S_ISDIR(mode) else "not a regular file"


def _require_replaceable(path: Path) -> None:
    """Raise InputError for a folder, and for devices and pipes, which a rename would destroy."""
    if path.is_dir() or (path.exists() and not path.is_file()):
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"cannot write {path}", got=kind, expected="the name of a file")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise an OSError inside as the InputError that ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        # The temporary name would only confuse; another file's name is needed.
        of = error.filename
        other = f": {of}" if of is not None and ".partial" not in str(of) and Path(of) != path else ""
        why, fix = (error.strerror or str(error)) + other, _FIXES.get(error.errno or 0)
        raise InputError(f"cannot write {path}", why=why, fix=fix) from error
