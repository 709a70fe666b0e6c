"""On what the measurements were made: versions, operating system, processor."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import dim
from dim.frozen_model import FrozenModel


class Environment(FrozenModel):
    """What must be known to repeat a measurement."""

    dim_matting: str
    torch: str
    numpy: str
    opencv: str
    python: str
    system: str
    processor: str
    """Model name, as the operating system knows it."""
    threads: int | None
    """Of the engines; None for their own choice."""


def environment(threads: int | None = None) -> Environment:
    """This process's environment."""
    import cv2

    return Environment(
        dim_matting=dim.__version__,
        torch=version("torch"),
        numpy=version("numpy"),
        opencv=cv2.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        processor=processor(),
        threads=threads,
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the CPU; on systems that do not tell it, the architecture."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
