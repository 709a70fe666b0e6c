"""TIFF files that are written tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dim.images import read_image
from dim.images.files import read_metadata
from dim.images.metadata import Metadata
from dim_runtime.images.tiff_writer import write_tiff

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 75, 101


def pixels(dtype: type = np.uint8, samples: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, samples), dtype)


def tiles(image: np.ndarray, side: int) -> Iterator[np.ndarray]:
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            yield image[y : y + side, x : x + side]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_what_is_written_tile_by_tile_is_read_back(tmp_path: Path, samples: int, dtype: type) -> None:
    image, path = pixels(dtype, samples), tmp_path / "image.tif"
    image = image if samples > 1 else image[..., 0]
    write_tiff(path, tiles(image, 32), shape=image.shape, dtype=image.dtype, side=32, premultiplied=True)
    np.testing.assert_array_equal(tifffile.imread(path), image)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].is_tiled
        assert [int(kind) for kind in file.pages[0].extrasamples] == ([1] if samples == 4 else [])
        assert not file.is_bigtiff


def test_a_large_result_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dim_runtime.images.tiff_writer.CLASSIC_LIMIT", 1000)
    image = pixels()
    write_tiff(tmp_path / "i.tif", tiles(image, 32), shape=image.shape, dtype=image.dtype, side=32)
    with tifffile.TiffFile(tmp_path / "i.tif") as file:
        assert file.is_bigtiff
    np.testing.assert_array_equal(read_image(tmp_path / "i.tif"), image)


def test_the_resolution_is_kept(tmp_path: Path) -> None:
    image, path = pixels(), tmp_path / "image.tif"
    kept = Metadata(density=(11811.0, 5906.0))
    write_tiff(path, tiles(image, 32), shape=image.shape, dtype=image.dtype, side=32, metadata=kept)
    assert read_metadata(path).density == pytest.approx(kept.density, rel=1e-3)
