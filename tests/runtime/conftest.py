"""Back ends without a model: the tiler is tested with arithmetic whose every bit is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from dim.arrays import Floating, UInt8
from dim.contract import STRIDE, ArtefactMetadata
from dim_runtime.backends.fake import FakeBackend, fake_metadata

Trimap = npt.NDArray[np.uint8]


def local_filter_alpha(image: UInt8, trimap: UInt8) -> Floating:
    """Look as far as DIM does, and in the same way: pools on the 32-pixel grid, zeros beyond the border.

    In whole numbers, so that two ways of computing a pixel agree in every bit or not at all.
    """
    values = image.astype(np.int64).sum(-1) * 7 + trimap
    n, h, w = values.shape
    pooled = values.reshape(n, h // STRIDE, STRIDE, w // STRIDE, STRIDE).max((2, 4))
    for _ in range(4):
        pooled = box_sum(pooled)
    deep = pooled.repeat(STRIDE, 1).repeat(STRIDE, 2)
    for _ in range(20):
        values = box_sum(values) % 10007
    return ((values + deep) % 1009) / np.float64(1009)


def box_sum(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum over 3×3 neighbours; zeros outside."""
    h, w = values.shape[1:]
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :h] + 2 * padded[:, 1 : h + 1] + padded[:, 2:]
    return rows[:, :, :w] + 3 * rows[:, :, 1 : w + 1] + rows[:, :, 2:]


def make_trimap(height: int, width: int, *, seed: int = 0, blobs: int = 3) -> Trimap:
    """Unknown ellipses' outlines around foreground; something is unknown at any size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    trimap = np.zeros((height, width), np.uint8)
    for _ in range(blobs):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(0.1, 0.4) * height + 1, rng.uniform(0.1, 0.4) * width + 1
        distance = np.hypot((y - cy) / ry, (x - cx) / rx)
        trimap[distance < 1.1] = 128
        trimap[distance < 0.8] = 255
    trimap[height // 2, width // 2] = 128
    return trimap


def make_image(height: int, width: int, *, seed: int = 0, dtype: type = np.uint8) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def whole_alpha(backend: FakeBackend, image: UInt8, trimap: Trimap) -> npt.NDArray[np.float64]:
    """Compute alpha by its definition: pad everything, run once, crop, set the known pixels."""
    height, width = trimap.shape
    pad = ((0, -height % STRIDE), (0, -width % STRIDE))
    padded = np.pad(image, (*pad, (0, 0)), mode="reflect"), np.pad(trimap, pad, mode="reflect")
    alpha = backend.alpha(padded[0][None], padded[1][None])[0, :height, :width].astype(np.float64)
    alpha[trimap == 0], alpha[trimap == 255] = 0, 1
    return alpha


@pytest.fixture
def metadata() -> Callable[..., ArtefactMetadata]:
    return fake_metadata


@pytest.fixture
def identity() -> FakeBackend:
    """Alpha is the red channel."""
    return FakeBackend()


@pytest.fixture
def local_filter() -> FakeBackend:
    return FakeBackend(alpha=local_filter_alpha)


@pytest.fixture
def pair() -> Callable[..., tuple[UInt8, Trimap]]:
    """Return a function that makes an image and a trimap of a size."""
    return lambda height, width, seed=0: (
        make_image(height, width, seed=seed),
        make_trimap(height, width, seed=seed),
    )


@pytest.fixture
def image() -> Callable[..., npt.NDArray[np.uint8]]:
    return make_image


@pytest.fixture
def whole() -> Callable[..., npt.NDArray[np.float64]]:
    return whole_alpha
