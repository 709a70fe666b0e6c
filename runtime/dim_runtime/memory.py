"""Resident memory of this process, and byte counts as people write them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

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


def parse_bytes(text: str) -> int:
    """``"2GB"``, ``"1.5 GiB"``, ``"800MB"`` or plain bytes -> bytes; InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise InputError(
            "cannot read this amount of memory", got=repr(text), expected="such as 2GB, 1.5GiB or 800MB"
        )
    return int(float(match[1]) * UNITS[match[2].upper()])


def format_bytes(count: int) -> str:
    """Bytes in decimal megabytes or gigabytes, rounded up so that the text, read back, is never too small."""
    if count < 10**9:
        return f"{-(-count // 10**6)}MB"
    return f"{-(-count // 10**7) / 100:.2f}GB"


def resident_bytes() -> int:
    """Resident memory of this process now; where the system does not tell, its peak so far."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return peak_resident_bytes()


if sys.platform == "win32":

    def peak_resident_bytes() -> int:
        """Highest resident memory of this process since it started."""
        import ctypes
        from ctypes import wintypes

        # PROCESS_MEMORY_COUNTERS: two 32-bit words, then eight sizes; the first is the peak working set.
        counters = (ctypes.c_size_t * 9)()
        process = ctypes.windll.kernel32.GetCurrentProcess
        process.restype = wintypes.HANDLE
        query = ctypes.windll.psapi.GetProcessMemoryInfo
        query.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
        query(process(), ctypes.byref(counters), ctypes.sizeof(counters))
        return int(counters[1])

else:

    def peak_resident_bytes() -> int:
        """Highest resident memory of this process since it started."""
        if sys.platform == "linux":
            # Not getrusage: a process inherits that number from the one that started it.
            status = Path("/proc/self/status").read_text(encoding="ascii")
            return int(status.split("VmHWM:")[1].split()[0]) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
