"""Resident memory of this process, and byte counts as text."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from pathlib import Path

import psutil

from dim.errors import InputError

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


RESERVE_BYTES = 16 << 20
"""Bytes that are added to the limit which an error states: what a process holds varies a little."""


def parse_bytes(text: str) -> int:
    """Parse ``"2GB"``, ``"1.5 GiB"``, ``"800MB"`` or plain bytes; InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise InputError(
            "cannot read this amount of memory", got=repr(text), expected="such as 2GB, 1.5GiB or 800MB"
        )
    return int(float(match[1]) * UNITS[match[2].upper()])


def format_bytes(count: int) -> str:
    """Format bytes in decimal B, KB, MB or GB, rounded up: the text, parsed, is never too small."""
    if count < 10**3:
        return f"{count}B"
    if count < 10**6:
        return f"{-(-count // 10**3)}KB"
    if count < 10**9:
        return f"{-(-count // 10**6)}MB"
    return f"{-(-count // 10**7) / 100:.2f}GB"


CGROUP = Path("/sys/fs/cgroup")
"""Limits of a container's memory, where Linux sets them by control groups of version 2."""


def available_bytes() -> int:
    """Return the memory that this process can take without swapping; a container's limit counts.

    Files that the system caches count as used in a container, but are dropped where memory is needed.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text("ascii").strip()
        used = int((CGROUP / "memory.current").read_text("ascii"))
        statistics = (CGROUP / "memory.stat").read_text("ascii")
    except OSError:
        return available
    if limit == "max":
        return available
    cached = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
    return min(available, max(int(limit) - used + (int(cached[1]) if cached else 0), 0))


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the highest resident memory of this process since it started."""
    if sys.platform == "linux":
        # Not getrusage: a process inherits that number from the process that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release_free_memory() -> None:
    """Return memory that was freed, but that the C library keeps for later, to the system.

    glibc keeps freed blocks in one arena for each thread; they count as resident. A few milliseconds. Does
    nothing with other C libraries.
    """
    trim = getattr(_c_library(), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
