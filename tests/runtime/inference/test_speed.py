"""The expected time of a plan."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.inference import speed
from dim_runtime.matting import Matting, default_model


class Slow(Backend):
    """Takes a microsecond for each pixel, by its own clock."""

    def __init__(self) -> None:
        self.now = 0.0

    @property
    def metadata(self) -> ArtefactMetadata:
        return read_metadata(default_model())

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        self.now += trimap.size * 1e-6
        return np.zeros(trimap.shape, np.float32)


def test_a_plan_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Slow()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: backend.now))
    with Matting.from_backend(backend) as matting:
        plan = matting.plan(np.full((1000, 1500), 128, np.uint8))
        assert plan.seconds == pytest.approx(sum(window.area for window in plan.windows) * 1e-6)
        assert matting.plan(np.zeros((50, 60), np.uint8)).seconds == 0
