"""What the parity numbers mean, and when they fail."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dim.contract import NetworkConfig
from dim.network import DIM
from dim_export.parity import CaseResult, Gates, ParityReport, compare, sample_cases
from dim_export.report import print_parity
from dim_export.to_onnx import describe
from dim_runtime.samples import lemur


def _report(*cases: dict[str, Any]) -> ParityReport:
    fields: dict[str, Any] = {
        "name": "case", "height": 10, "width": 10, "tile": 448, "windows": 1, "unknown_pixels": 100,
        "share_beyond": 0.0, "mean_difference": 0.0, "max_difference": 0.0, "sad": 0.0, "nan_pixels": 0,
        "spread": 0.3,
    }  # fmt: skip
    results = tuple(CaseResult(**(fields | case)) for case in cases)
    return ParityReport(checkpoint="a", artefact="b", same_checkpoint=True, gates=Gates(), cases=results)


def test_compare_looks_at_unknown_pixels_only() -> None:
    trimap = np.array([[0, 128, 128, 255]], np.uint8)
    found = compare(np.array([[0, 0.5, 0.5, 1]]), np.array([[0.9, 0.5, 0.75, 0]]), trimap)
    assert (found.unknown_pixels, found.share_beyond, found.max_difference) == (2, 0.5, 0.25)
    assert (found.mean_difference, found.sad, found.nan_pixels) == (0.125, 0.00025, 0)


def test_compare_without_unknown_pixels() -> None:
    found = compare(np.zeros((2, 2)), np.ones((2, 2)), np.zeros((2, 2), np.uint8))
    assert (found.unknown_pixels, found.share_beyond, found.sad) == (0, 0, 0)


def test_nan_is_reported_as_such_and_fails() -> None:
    trimap = np.full((1, 4), 128, np.uint8)
    found = compare(np.zeros((1, 4)), np.array([[0, np.nan, 0, 0]]), trimap)
    assert found.nan_pixels == 1
    assert math.isnan(found.share_beyond)
    report = _report({}, found.model_dump())
    assert not report.passed
    written = json.loads(report.model_dump_json())
    assert written["cases"][1]["share_beyond"] is None
    assert written["nan_pixels"] == 1
    console = Console(record=True, width=100)
    print_parity(report, console)
    assert "1 unknown pixels are NaN" in console.export_text()


@pytest.mark.parametrize(
    ("cases", "passed"),
    [
        ([{}], True),
        ([{"share_beyond": 0.009}, {}], True),
        ([{"share_beyond": 0.011}, {}], False),
        ([{"mean_difference": 0.004}], True),
        ([{"mean_difference": 0.006}], False),
        ([{"max_difference": 0.9}], True),
    ],
)
def test_gates_judge_the_means(cases: list[dict[str, float]], passed: bool) -> None:
    assert _report(*cases).passed is passed


def test_sample_cases_cover_what_differs() -> None:
    metadata = describe(DIM(NetworkConfig(width=0.125)), checkpoint_sha256="")
    shapes = [case.trimap.shape for case in sample_cases(metadata, *lemur())]
    assert any(h % 32 == 0 and w % 32 == 0 for h, w in shapes)
    assert any(h % 32 and w % 32 for h, w in shapes)
    assert any(h < 32 and w < 32 for h, w in shapes)
    assert any(h > w for h, w in shapes)
    assert any(h < w for h, w in shapes)
    assert len({case.tile for case in sample_cases(metadata, *lemur())}) > 1


def test_sample_cases_fit_a_small_frozen_shape() -> None:
    metadata = describe(DIM(NetworkConfig(width=0.125)), checkpoint_sha256="", static_shape=(1, 96, 64))
    for case in sample_cases(metadata, *lemur()):
        assert case.trimap.shape[0] <= 96
        assert case.trimap.shape[1] <= 64
        assert case.image.shape[:2] == case.trimap.shape
        assert (case.trimap == 128).any()
