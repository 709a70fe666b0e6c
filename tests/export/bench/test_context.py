"""The table of what a smaller context saves and costs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from dim_export.bench.context import CONTEXTS
from dim_export.cli.app import app
from dim_runtime.images.samples import lemur


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a strip of the lemur, unknown at its left end, with a truth that is one half everywhere."""
    image = lemur()[0][150:246]
    trimap = np.zeros(image.shape[:2], np.uint8)
    trimap[:, :40] = 128
    arrays = {
        "images": image[..., ::-1],
        "trimaps": trimap,
        "alphas": np.full(image.shape[:2], 128, np.uint8),
    }
    for folder, array in arrays.items():
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "lemur.png"), array)
    return tmp_path


def test_the_command_writes_a_row_for_each_context(pairs: Path) -> None:
    report = pairs / "context.json"
    options = ["--images", str(pairs), "--trimaps", str(pairs / "trimaps"), "--threads", "1"]
    done = CliRunner().invoke(app, ["context", *options, "--report", str(report)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "SAD shift" in done.stdout
    rows = json.loads(report.read_text())
    assert [row["context"] for row in rows] == [None, *reversed(CONTEXTS)]
    assert rows[0]["difference"] == rows[0]["largest"] == 0
    costs = [row["cost"] for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert costs == [row["planned_cost"] for row in rows]
    assert costs[-1] < costs[0]
    assert rows[-1]["largest"] > 0
    assert all(row["sad"] > 0 for row in rows)


def test_a_folder_without_trimaps_is_an_error(pairs: Path) -> None:
    done = CliRunner().invoke(app, ["context", "--images", str(pairs), "--trimaps", str(pairs / "none")])
    assert done.exit_code != 0
