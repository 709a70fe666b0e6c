"""Metrics against the reference implementation's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dim import metrics
from dim.errors import InputError

CASES = ("small", "mid", "perfect", "allunknown_pred0", "nounknown", "gtconst200_predconst100")


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_the_reference_s(
    case: str, golden: Callable[[str], dict[str, Any]], golden_info: dict[str, Any]
) -> None:
    arrays = golden("D_metrics")
    expected = golden_info["D"][case]["v0"]
    inputs = (arrays[f"{case}__pred"], arrays[f"{case}__alpha"], arrays[f"{case}__trimap"])
    assert metrics.sad(*inputs) == pytest.approx(expected["SAD"], rel=1e-9)
    assert metrics.mse(*inputs) == pytest.approx(expected["MSE"], rel=1e-9)


def test_the_published_example() -> None:
    truth = np.full((32, 32), 255, np.uint8)
    trimap = np.zeros((32, 32), np.uint8)
    trimap[:16, :16], trimap[16:, 16:] = 128, 255
    alpha = np.where(trimap == 255, 255, 0).astype(np.uint8)
    assert metrics.sad(alpha, truth, trimap) == pytest.approx(0.768)
    assert metrics.mse(alpha, truth, trimap) == pytest.approx(3.0)


def test_predictions_that_contradict_the_trimap_are_refused() -> None:
    zero = np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match="contradicts"):
        metrics.sad(zero + 1, zero, zero)
    with pytest.raises(InputError, match="does not fit"):
        metrics.mse(zero[:2], zero, zero)
    with pytest.raises(InputError, match="does not fit"):
        metrics.mse(zero.astype(np.float32), zero, zero)  # type: ignore[arg-type]
