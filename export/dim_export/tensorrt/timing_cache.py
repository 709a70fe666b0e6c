"""TensorRT's kernel timings, kept in a file that several builds may share.

Read under a lock before a build, and merged under it afterwards with what other builds have added meanwhile;
the build itself, which takes minutes, holds no lock. Never executed with TensorRT so far, which needs a GPU:
the order of the calls is tested with a fake.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dim.errors import InputError
from dim.files import write_bytes


def load_timings(config: Any, path: Path) -> None:
    """Give the builder the timings in the file, or an empty collection if there is none yet.

    Raises:
        InputError: timings of another release or GPU, or no timings at all.
    """
    with locked(path):
        content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise InputError(
            f"cannot use the timing cache {path}",
            got=f"{len(content)} bytes",
            expected="timings of this release of TensorRT on this kind of GPU",
            fix="another file: one for each release and kind of GPU",
        )


def store_timings(config: Any, path: Path) -> None:
    """Write the timings of a finished build, with those that others have written meanwhile."""
    cache = config.get_timing_cache()
    with locked(path):
        if path.is_file():
            cache.combine(config.create_timing_cache(path.read_bytes()), False)
        write_bytes(path, bytes(cache.serialize()))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside ``path``, waiting for whoever has it; the system frees it if they die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a+b") as file:
        _lock(file.fileno())
        try:
            yield
        finally:
            _unlock(file.fileno())


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
