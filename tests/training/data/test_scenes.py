"""Scenes from an annotation list: the published pipeline, off line and on line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dim.errors import InputError
from dim_training.config import DataConfig
from dim_training.data.annotations import read
from dim_training.data.dataset import build_dataset
from dim_training.data.on_device import PackedParts, build_parts, compose
from dim_training.data.scenes import AnnotatedScenes

SIZES = ((300, 400), (90, 120))
"""One image that is larger than every crop, and one that has to be enlarged."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    entries = []
    for number, (height, width) in enumerate(SIZES):
        rows, columns = np.mgrid[:height, :width]
        distance = np.hypot(rows - height / 2, columns - width / 2)
        alpha = np.clip((min(height, width) / 3 - distance) * 8, 0, 255).astype(np.uint8)
        layers = {name: draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in ("fg", "bg")}
        share = alpha[..., None] / 255.0
        merged = (layers["fg"] * share + layers["bg"] * (1 - share)).astype(np.uint8)
        for name, image in {**layers, "alpha": alpha, "merged": merged}.items():
            cv2.imwrite(str(tmp_path / f"{name}_{number}.png"), image)
        entries.append({f"{name}_path": f"{name}_{number}.png" for name in ("alpha", "fg", "bg", "merged")})
    (tmp_path / "training_list.json").write_text(json.dumps(entries))
    return tmp_path


def _scenes(root: Path, **changes: Any) -> AnnotatedScenes:
    config = DataConfig(kind="comp1k", root=root, crop_sides=(128, 160), size=96, **changes)
    return AnnotatedScenes(read(root / "training_list.json", root), config, seed=3)


@pytest.mark.parametrize("index", range(6))
def test_on_line_and_off_line_differ_by_the_rounding_of_the_file(root: Path, index: int) -> None:
    offline, online = (
        _scenes(root, online=online).draw(index, np.random.default_rng(index)) for online in (False, True)
    )
    for ours, theirs in zip(offline.layers, online.layers, strict=True):
        assert np.array_equal(ours, theirs)
    difference = online.image - offline.image
    # The merged file is truncated to whole levels, and enlarging and shrinking it rounds.
    assert difference.min() > -1.1
    assert difference.max() < 2.1
    assert np.abs(difference).mean() < 0.6
    assert not np.array_equal(online.image, online.image.round())


def test_each_pass_shows_every_image_once(root: Path) -> None:
    scenes = _scenes(root, online=True)
    orders = {tuple(scenes._annotation(2 * epoch + place).alpha for place in range(2)) for epoch in range(12)}
    names = root / "alpha_0.png", root / "alpha_1.png"
    assert orders == {names, names[::-1]}


def test_missing_merged_files_are_told_before_training(root: Path) -> None:
    (root / "merged_0.png").unlink()
    settings = {"kind": "comp1k", "root": root, "crop_sides": (128,), "size": 96}
    with pytest.raises(InputError, match=r"merged_0\.png"):
        build_dataset(DataConfig(**settings), seed=0, length=1)
    sample = build_dataset(DataConfig(**settings, online=True), seed=0, length=1)[0]
    assert sample.unknown.sum() > 0


def test_parts_compose_to_what_is_drawn_where_nothing_is_resized(root: Path) -> None:
    config = DataConfig(kind="comp1k", root=root, online=True, crop_sides=(64,), size=64, workers=0)
    loader, parts = (build(config, seed=1, length=6) for build in (build_dataset, build_parts))
    for index in range(6):
        packed = PackedParts(*(torch.as_tensor(item)[None] for item in parts[index]))
        found = compose(packed, torch.device("cpu"))
        for ours, theirs in zip(found, loader[index], strict=True):
            torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-5)
