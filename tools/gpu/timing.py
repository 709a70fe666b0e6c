"""Time of a call on a device, and the options that the kit's scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
import torch


def milliseconds(call: Callable[[], object], device: str, *, runs: int = 15, warm: int = 5) -> float:
    """Return the median time of a call, in milliseconds, with its work on the device complete."""
    times = []
    for _ in range(warm + runs):
        started = perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(1e3 * (perf_counter() - started))
    return median(times[warm:])


def reset_peak(device: str) -> None:
    """Let :func:`peak_mib` count from here on."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: str) -> int | None:
    """Return the most memory that PyTorch held on a GPU since :func:`reset_peak`, MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) >> 20 if device.startswith("cuda") else None


def free_mib(device: str) -> int:
    """Return the free memory of a GPU, or of the host for the CPU, MiB."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] >> 20
    return psutil.virtual_memory().available >> 20


def options(description: str) -> argparse.Namespace:
    """Read the command line of a script: output, device, and whether it is a dry run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("output", type=Path, help="JSON to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, to try the script")
    return parser.parse_args()
