"""Samples: a function of seed and index, consistent with themselves, from every source."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dim.errors import InputError
from dim_training.config import DataConfig, read_config
from dim_training.data.dataset import build_dataset

SMALL = {"crop_sides": (96, 128), "size": 64, "workers": 0}


@pytest.fixture
def cutout_root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :90]
    alpha = np.clip((35 - np.hypot(rows - 60, columns - 45)) * 30, 0, 255).astype(np.uint8)
    for folder in ("animals", "smoke"):
        (tmp_path / "foregrounds" / folder).mkdir(parents=True)
        rgba = np.dstack([draw.integers(0, 256, (120, 90, 3), dtype=np.uint8), alpha])
        cv2.imwrite(str(tmp_path / "foregrounds" / folder / "a.png"), rgba)
    (tmp_path / "backgrounds").mkdir()
    cv2.imwrite(str(tmp_path / "backgrounds" / "b.jpg"), draw.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    return tmp_path


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    config = DataConfig(**SMALL, photometric=True)
    first, second = (build_dataset(config, seed=5, length=9) for _ in range(2))
    second[3]
    for a, b in zip(first[7], second[7], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[7].alpha, first[6].alpha)
    assert not torch.equal(first[7].alpha, build_dataset(config, seed=6, length=9)[7].alpha)


def test_a_sample_is_consistent() -> None:
    dataset = build_dataset(DataConfig(**SMALL), seed=0, length=12)
    for index in range(12):
        sample = dataset[index]
        composite = sample.alpha * sample.foreground + (1 - sample.alpha) * sample.background
        torch.testing.assert_close(composite, sample.image, atol=1e-5, rtol=0)
        assert sample.network_input.shape == (4, 64, 64)
        known = 1 - sample.unknown
        torch.testing.assert_close(known * sample.network_input[3:], known * sample.alpha)


@pytest.mark.parametrize("photometric", [False, True])
def test_cutouts_and_photographs_from_a_folder(cutout_root: Path, photometric: bool) -> None:
    config = DataConfig(
        **SMALL,
        kind="rgba",
        root=cutout_root,
        weights={"animals": 3.0},
        tinted=("smoke",),
        procedural=0.2,
        photometric=photometric,
    )
    dataset = build_dataset(config, seed=0, length=30)
    shares = [dataset[index].unknown.mean().item() for index in range(30)]
    assert max(shares) > 0.05


def test_names_of_folders_that_are_not_there(cutout_root: Path) -> None:
    config = DataConfig(**SMALL, kind="rgba", root=cutout_root, weights={"animal": 3.0})
    with pytest.raises(InputError, match="animal"):
        build_dataset(config, seed=0, length=1)


def test_the_recipe_own_needs_no_names_of_folders(cutout_root: Path) -> None:
    overrides = [f"data.root={cutout_root}", "data.workers=0", "data.size=64", "data.crop_sides=[96]"]
    dataset = build_dataset(read_config("own", overrides).data, seed=0, length=3)
    assert dataset[2].unknown.any()
    with pytest.raises(InputError, match=r"data\.weights=none"):
        build_dataset(read_config("compact", overrides).data, seed=0, length=1)


def test_files_beside_folders_are_not_ignored(cutout_root: Path) -> None:
    source = cutout_root / "foregrounds" / "smoke" / "a.png"
    (cutout_root / "foregrounds" / "loose.png").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"loose\.png"):
        build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root), seed=0, length=1)


def test_hidden_files_are_left_out(cutout_root: Path) -> None:
    for folder in (
        "foregrounds/animals",
        "foregrounds/__MACOSX",
        "foregrounds/.ipynb_checkpoints",
        "backgrounds",
    ):
        (cutout_root / folder).mkdir(exist_ok=True)
        (cutout_root / folder / "._a.png").write_bytes(b"not an image")
    (cutout_root / "foregrounds" / ".DS_Store.png").write_bytes(b"not an image")
    dataset = build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root), seed=0, length=2)
    assert dataset[1].alpha.any()


@pytest.mark.parametrize("side", [1, 3, 15])
def test_tiny_backgrounds_are_found_before_training(cutout_root: Path, side: int) -> None:
    cv2.imwrite(str(cutout_root / "backgrounds" / "tiny.png"), np.zeros((side, 200, 3), np.uint8))
    with pytest.raises(InputError, match=r"(?s)tiny\.png.*200×"):
        build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root), seed=0, length=1)


def test_foregrounds_that_show_nothing_are_found_before_training(cutout_root: Path) -> None:
    cv2.imwrite(str(cutout_root / "foregrounds" / "smoke" / "clear.png"), np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(InputError, match=r"(?s)clear\.png.*shows nothing"):
        build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root), seed=0, length=1)


def test_missing_folders_and_cutouts_without_alpha(cutout_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root"):
        build_dataset(DataConfig(**SMALL, kind="rgba"), seed=0, length=1)
    with pytest.raises(InputError, match="no such folder"):
        build_dataset(DataConfig(**SMALL, kind="rgba", root=tmp_path / "none"), seed=0, length=1)
    cv2.imwrite(str(cutout_root / "foregrounds" / "smoke" / "b.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="no RGBA image"):
        build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root), seed=0, length=1)


def test_layered_backgrounds_show_foregrounds_and_change_nothing_else(cutout_root: Path) -> None:
    plain, none, layered = (
        build_dataset(DataConfig(**SMALL, kind="rgba", root=cutout_root, layered=share), seed=0, length=12)
        for share in (0.0, 0.0, 1.0)
    )
    backgrounds = [(plain[index].background, layered[index].background) for index in range(12)]
    assert all(torch.equal(plain[index].background, none[index].background) for index in range(12))
    assert all(torch.equal(plain[index].alpha, layered[index].alpha) for index in range(12))
    assert sum(not torch.equal(*pair) for pair in backgrounds) >= 8
