"""The device of a run: the accelerator of the machine, or the one that the user named; never another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from dim.errors import InputError
from dim_runtime.backends.device import parse_device
from dim_runtime.errors import DeviceError

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(days=1)
"""Time that a process waits for the slowest one; the launcher ends all of them if one dies."""


def open_accelerator(device: str, precision: str) -> Accelerator:
    """Return accelerate's view of the device and of the other processes.

    Args:
        device: "auto" for the machine's accelerator, or for the CPU without one; "cpu"; "cuda"; "cuda:N".
        precision: "fp32", "bf16" or "fp16".

    Raises:
        DeviceError: no such device, or a single one for several processes.
        InputError: fp16 on the CPU.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    if device != "auto":
        require_device(device)
        _take(device)
    if precision == "fp16" and (device == "cpu" or not torch.accelerator.is_available()):
        raise InputError("cannot train in fp16 on the CPU", expected="precision=bf16 or precision=fp32")
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        cpu=device == "cpu",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if device != "auto" and accelerator.device.type != parse_device(device).kind:
        raise DeviceError(
            "cannot use this device", got=f"{accelerator.device}, from the launcher", expected=device
        )
    return accelerator


def describe(device: torch.device) -> str:
    """Return a device's name for people, such as ``cuda (NVIDIA H100)``."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def require_device(name: str) -> torch.device:
    """Return the device "cpu", "cuda" or "cuda:N"; DeviceError if PyTorch does not have it."""
    device = parse_device(name)
    if device.kind == "cuda" and device.number >= torch.cuda.device_count():
        raise DeviceError(
            f"cannot use the device {name!r}",
            got=f"PyTorch {torch.__version__} with {torch.cuda.device_count()} CUDA devices",
            expected=f"at least {device.number + 1}",
            fix="--device cpu, or install PyTorch's CUDA build and the driver",
        )
    return torch.device(name)


def _take(name: str) -> None:
    """Make ``cuda:N`` the current device, which accelerate takes."""
    kind, _, number = name.partition(":")
    if not number:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError(
            f"cannot train on {name!r} in several processes",
            expected=f"--device {kind}: each process takes the GPU of its number",
        )
    torch.cuda.set_device(int(number))


@contextmanager
def float32_convolutions(*, tf32: bool) -> Iterator[None]:
    """Allow or forbid TF32, with its 10 bits of mantissa, in cuDNN's convolutions; PyTorch allows it."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
