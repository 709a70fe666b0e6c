"""Names of devices."""

from __future__ import annotations

import pytest

from dim_runtime.backends.device import Device, parse_device, require_cuda
from dim_runtime.errors import DeviceError


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cpu", Device("cpu", 0)),
        ("cuda", Device("cuda", 0)),
        ("cuda:0", Device("cuda", 0)),
        ("cuda:12", Device("cuda", 12)),
    ],
)
def test_names(name: str, device: Device) -> None:
    assert parse_device(name) == device
    if device.kind == "cuda":
        assert require_cuda(name) == device


@pytest.mark.parametrize(
    "name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:one", "cuda:²", "cuda:1:2", "cpu:0", " cpu"]
)
def test_other_names_are_errors(name: str) -> None:
    for parse in (parse_device, require_cuda):
        with pytest.raises(DeviceError, match="cuda:N"):
            parse(name)


def test_an_engine_needs_a_gpu() -> None:
    with pytest.raises(DeviceError, match="NVIDIA GPUs only"):
        require_cuda("cpu")
