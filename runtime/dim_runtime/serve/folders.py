"""The temporary folder of a server: locked while its process lives; a later one removes what was left."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from dim.errors import InputError

FOLDER_PREFIX = "dim-serve-"
"""Beginning of the name of the temporary folder that holds all jobs."""
LOCK_NAME = ".lock"
"""Name of the file in the folder that the server's process holds locked until it ends, however it ends."""


class ServerFolder:
    """A new temporary folder. Other servers leave it alone until this process closes it or ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        try:
            self._lock = _new_lock(self.path)
        except OSError:
            # On a full disk: without a lock no later server would remove it.
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def close(self) -> None:
        """Remove the folder with all that it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _new_lock(folder: Path) -> int:
    # Locked before it has its name: no other process finds the file without the lock.
    unnamed = folder / f"{LOCK_NAME}-new"
    lock = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    if not _try_lock(lock):
        raise BlockingIOError(f"{unnamed} is new, and locked by another process")
    unnamed.rename(folder / LOCK_NAME)
    return lock


def require_temporary_folder() -> None:
    """Raise InputError if no temporary folder can be written: every request needs one."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(
            "cannot serve without a temporary folder",
            got=str(error.strerror),
            why="uploads and results lie there",
            fix="set TMPDIR to a folder that can be written; in a container: --tmpfs /tmp",
        ) from error


def remove_abandoned() -> None:
    """Remove the folders of servers of this user that were killed.

    A folder is removed only if it is no link, belongs to this user, and has a lock file that is not locked.
    """
    if sys.platform == "win32":
        return
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            _remove_if_abandoned(path)
        except OSError:
            # Another server removes it at the same time, or it is no folder of a server.
            continue


def _remove_if_abandoned(path: Path) -> None:
    # No link is followed, because every user can write to the temporary folder.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            return
        lock = os.open(LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            if stat.S_ISREG(os.fstat(lock).st_mode) and _try_lock(lock):
                # On POSIX rmtree follows no link either.
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
    finally:
        os.close(folder)


def _try_lock(lock: int) -> bool:
    """Lock a file for this process without waiting; return whether that was possible."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
