"""TensorRT's kernel timings in a file that several builds may share.

The file is read under a lock before a build and merged under it afterwards with the timings of other builds;
the build itself, which takes minutes, holds no lock. No GPU has run this code yet: TensorRT needs one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from dim.errors import InputError
from dim.files import write_bytes


def load_timings(config: Any, path: Path) -> None:
    """Give the builder the timings in the file, or an empty collection if there is no file.

    Raises:
        InputError: timings of another release or GPU, or no timings at all.
    """
    with lock(path):
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
    """Write the timings of a finished build, merged with those of builds that finished meanwhile."""
    cache = config.get_timing_cache()
    with lock(path):
        if path.is_file():
            cache.combine(config.create_timing_cache(path.read_bytes()), False)
        write_bytes(path, bytes(cache.serialize()))


def lock(path: Path) -> BaseFileLock:
    """Return the lock beside ``path``; it blocks until free, and the system frees it if its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))
