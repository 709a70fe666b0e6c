"""Names of devices: ``cpu``, ``cuda``, ``cuda:N``; parsed here for the back ends and for training."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dim_runtime.errors import DeviceError


class Device(NamedTuple):
    """A parsed device name.

    Attributes:
        kind: the processor.
        number: index of the GPU; 0 for "cuda" and for "cpu".
    """

    kind: Literal["cpu", "cuda"]
    number: int = 0


def parse_device(name: str) -> Device:
    """Parse "cpu", "cuda" or "cuda:N"; DeviceError for any other value."""
    if name == "cpu":
        return Device("cpu")
    kind, colon, number = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "cuda" and (not colon or (number.isascii() and number.isdecimal())):
        return Device("cuda", int(number or 0))
    raise DeviceError("cannot use this device", got=repr(name), expected='"cpu", "cuda" or "cuda:N"')


def require_cuda(name: str) -> Device:
    """Parse "cuda" or "cuda:N"; DeviceError for "cpu" and any other text."""
    device = parse_device(name)
    if device.kind != "cuda":
        raise DeviceError(
            "cannot use this device for a TensorRT engine",
            got=repr(name),
            expected='"cuda" or "cuda:N"',
            why="engines run on NVIDIA GPUs only",
            fix='device="cuda" (--device cuda), or an .onnx artefact for the CPU',
        )
    return device
