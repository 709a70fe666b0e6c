"""What the parity numbers mean."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dim.contract import NetworkConfig
from dim.network import DIM
from dim_export.cli.printing import print_parity
from dim_export.graph.onnx_file import describe
from dim_export.parity.cases import cases, pictures, sample_cases, tie_image
from dim_export.parity.comparison import Difference, against_truth, compare, gain, relative_shift
from dim_export.parity.gates import Measure, gates_for
from dim_export.parity.other_tools import ToolResult
from dim_export.parity.result import CaseResult, ParityError, ParityReport, require_passed
from dim_runtime.images.samples import lemur


def _report(*results: dict[str, Any], **fields: Any) -> ParityReport:
    blank: dict[str, Any] = {
        "name": "case", "height": 10, "width": 10, "tile": 448, "windows": 1, "unknown_pixels": 100,
        "share_beyond": 0.0, "mean_difference": 0.0, "max_difference": 0.0, "sad": 0.0, "nan_pixels": 0,
        "spread": 0.3,
    }  # fmt: skip
    common: dict[str, Any] = {
        "checkpoint": "a", "artefact": "b", "precision": "fp32", "engine": "fake 1", "device": "cpu",
        "checkpoint_sha256": "1", "recorded_sha256": "1", "gates": gates_for("fp32"),
        "cases": tuple(CaseResult(**(blank | result)) for result in results),
    }  # fmt: skip
    return ParityReport(**(common | fields))


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
    report = _report({}, found.model_dump(), not_finite=("net.pth: conv.bias",))
    assert not report.passed
    written = json.loads(report.model_dump_json())
    assert written["cases"][1]["share_beyond"] is None
    assert written["nan_pixels"] == 1
    console = Console(record=True, width=100)
    print_parity(report, console)
    printed = console.export_text()
    assert "1 unknown pixels are NaN" in printed
    assert "tensor net.pth: conv.bias" in printed
    with pytest.raises(ParityError, match=r"NaN or infinity in net\.pth: conv\.bias"):
        require_passed(report)


@pytest.mark.parametrize(
    ("results", "passed"),
    [
        ([{}], True),
        ([{"share_beyond": 0.009}, {}], True),
        ([{"share_beyond": 0.011}, {}], False),
        ([{"mean_difference": 0.004}], True),
        ([{"mean_difference": 0.006}], False),
        ([{"max_difference": 0.9}], True),
        ([{}, {"ties": True, "share_beyond": 0.2, "mean_difference": 0.1}], True),
        ([{}, {"ties": True, "share_beyond": 0.35}], False),
    ],
)
def test_fp32_gates_judge_the_means_and_the_tie_image_apart(
    results: list[dict[str, Any]], passed: bool
) -> None:
    assert _report(*results).passed is passed


@pytest.mark.parametrize(
    ("measure", "mean", "changed", "passed"),
    [
        (Measure.SLIMMED, 0.004, 0, True),
        (Measure.SLIMMED, 0.006, 0, False),
        (Measure.HALF_WEIGHTS, 0.02, 0, True),
        (Measure.HALF_WEIGHTS, 0.04, 0, False),
        (Measure.HALF_WEIGHTS, math.nan, 0, False),
        (Measure.SLIMMED, 0, 1, False),
    ],
)
def test_gates_judge_what_other_tools_make_of_the_file(
    measure: Measure, mean: float, changed: int, passed: bool
) -> None:
    difference = Difference(
        unknown_pixels=9, share_beyond=0, mean_difference=mean, max_difference=0, sad=0, nan_pixels=0,
        spread=0.3,
    )  # fmt: skip
    tool = ToolResult(tool="a", measure=measure, difference=difference, changed_known=changed)
    assert _report({}, tools=(tool,)).passed is passed


def test_a_nan_weight_alone_fails() -> None:
    assert not _report({}, not_finite=("net.onnx: conv.weight",)).passed


def test_what_the_frozen_shape_cannot_take_is_said() -> None:
    console = Console(record=True, width=100)
    print_parity(_report({}, left_out=("big.png",), recorded_sha256="2"), console)
    printed = console.export_text()
    assert "left out: big.png" in printed
    assert "names another checkpoint" in printed


def test_shifts_against_the_truth() -> None:
    trimap = np.array([[0, 128, 128, 255]], np.uint8)
    truth = np.array([[9, 100, 100, 200]], np.uint8)  # wrong where the trimap is sure: not counted
    reference = np.array([[0, 110 / 255, 110 / 255, 1]])
    found = np.array([[0, 110 / 255, 115 / 255, 1]])
    scores = against_truth(reference, found, truth, trimap)
    assert scores is not None
    assert scores.reference.sad == pytest.approx(20 / 255 / 1000)
    assert scores.shift["sad"] == pytest.approx(0.25)
    assert against_truth(reference, found * np.nan, truth, trimap) is None
    report = _report({"truth": scores})
    assert report.sad_shift == pytest.approx(0.25)
    assert not report.passed
    assert _report({}).sad_shift is None


def test_gain_finds_a_scaled_layer_under_noise() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, 20_000)
    noisy = 1.05 * logits + draw.normal(0, 0.3, logits.size)

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    assert gain(sigmoid(logits), sigmoid(logits)) == pytest.approx(1)
    assert gain(sigmoid(logits), sigmoid(noisy)) == pytest.approx(1.05, abs=0.01)
    assert gain(sigmoid(logits[:500]), sigmoid(noisy[:500])) is None


def test_relative_shift_of_nothing() -> None:
    assert relative_shift(0, 0) == 0
    assert math.isnan(relative_shift(0, 1))


def test_sample_cases_cover_what_differs() -> None:
    metadata = describe(DIM(NetworkConfig(width=0.125)), checkpoint_sha256="")
    shapes = [case.sample.trimap.shape for case in sample_cases(metadata, *lemur())]
    assert any(h % 32 == 0 and w % 32 == 0 for h, w in shapes)
    assert any(h % 32 and w % 32 for h, w in shapes)
    assert any(h < 32 and w < 32 for h, w in shapes)
    assert any(h > w for h, w in shapes)
    assert any(h < w for h, w in shapes)
    assert len({case.tile for case in sample_cases(metadata, *lemur())}) > 1


def test_cases_fit_a_small_frozen_shape() -> None:
    metadata = describe(DIM(NetworkConfig(width=0.125)), checkpoint_sha256="", static_shape=(1, 96, 64))
    found = [case for picture in pictures() for case in cases(picture, metadata)]
    assert [case.sample.name for case in found if case.ties] == ["tie image"]
    for case in found:
        assert case.sample.trimap.shape[0] <= 96
        assert case.sample.trimap.shape[1] <= 64
        assert case.sample.image.shape[:2] == case.sample.trimap.shape
        assert (case.sample.trimap == 128).any()


def test_the_columns_of_every_pooling_window_of_the_tie_image_are_equal() -> None:
    picture = tie_image(96, 128)
    assert (picture.sample.image[:, 0::2] == picture.sample.image[:, 1::2]).all()
    assert (picture.sample.trimap[:, 0::2] == picture.sample.trimap[:, 1::2]).all()
    assert len(np.unique(picture.sample.image[:, 0], axis=0)) > 12
