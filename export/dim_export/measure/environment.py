"""Record the environment of a measurement: versions, operating system, processor."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import dim
from dim.frozen_model import FrozenModel


class Environment(FrozenModel):
    """The facts that are needed to repeat a measurement."""

    dim_matting: str
    torch: str
    numpy: str
    opencv: str
    python: str
    system: str
    processor: str
    """Model name of the CPU, from the operating system."""
    threads: int | None
    """Threads of the engines; None for the engines' choice."""


def environment(threads: int | None = None) -> Environment:
    """Return the environment of this process.

    Args:
        threads: threads of the engines; None for the engines' choice.
    """
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
    """Return the model name of the CPU, or its architecture if the system does not report a name."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
