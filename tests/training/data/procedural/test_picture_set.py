"""Drawn files are a data set of both kinds, and loaders are timed with them."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from dim_training.config import DataConfig, TrainConfig
from dim_training.data.dataset import build_dataset
from dim_training.data.loader_bench import bench_drawn
from dim_training.data.procedural.picture_set import write_drawn_set

SMALL = {"crop_sides": (64,), "size": 64, "workers": 0}


@pytest.mark.parametrize("settings", [{"kind": "rgba"}, {"kind": "comp1k", "online": True}])
def test_both_kinds_of_data_read_it(tmp_path: Path, settings: dict[str, object]) -> None:
    write_drawn_set(tmp_path, megapixels=0.03)
    foreground = cv2.imread(str(tmp_path / "foregrounds" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert foreground.shape == (150, 200, 4)
    dataset = build_dataset(DataConfig(root=tmp_path, **SMALL, **settings), seed=0, length=4)
    assert max(float(dataset[index].unknown.mean()) for index in range(4)) > 0.01


def test_loaders_are_timed_with_it() -> None:
    config = TrainConfig(data=DataConfig(kind="rgba", weights={"mine": 2.0}, **SMALL))
    found = bench_drawn(config, 0.03, samples=8)
    assert found.samples_per_second > 0
    assert "function calls" in found.profile
