"""Crop, flip, resize, trimap and composition of a training sample.

All arrays are H, W or H, W, 3 (RGB); colours and alpha are 0-255, in uint8 unless stated otherwise.
Randomness comes from the generator that is passed in, never from a global one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim import trimap as trimaps
from dim.arrays import Float32, Random, UInt8

Layer = npt.NDArray[Any]
"""Array that is cropped, flipped and resized with others: uint8 or float32, H, W or H, W, 3."""


class Layers(NamedTuple):
    """A foreground over a background, uint8: ``foreground`` and ``background`` H, W, 3; ``alpha`` H, W."""

    foreground: UInt8
    background: UInt8
    alpha: UInt8


def crop_around_unknown(
    alpha: Layer, *others: Layer, sides: tuple[int, ...], rng: Random
) -> tuple[Layer, ...]:
    """Cut a square window of random side around a random pixel with 0 < alpha < 255; the same for all arrays.

    Images smaller than the window are enlarged (bilinear) until it fits. Pixels whose window lies inside
    the image are preferred; without any unknown pixel the top left window is taken.
    """
    side = int(rng.choice(sides))
    layers = _enlarge((alpha, *others), side)
    top, left = _window_origin(layers[0], side, rng)
    return tuple(layer[top : top + side, left : left + side] for layer in layers)


def _enlarge(layers: tuple[Layer, ...], side: int) -> tuple[Layer, ...]:
    height, width = layers[0].shape
    if min(height, width) >= side:
        return layers
    ratio = max(side / height, side / width)
    size = (max(int(width * ratio), side), max(int(height * ratio), side))
    return tuple(_resized(layer, size) for layer in layers)


def _window_origin(alpha: Layer, side: int, rng: Random) -> tuple[int, int]:
    """Return top and left of a window around a random unknown pixel; 0, 0 without any."""
    height, width = alpha.shape
    half = side // 2
    unknown = ((alpha > 0) & (alpha < 255)).view(np.uint8)
    # First choice: unknown pixels whose whole window lies inside the image.
    inside = unknown[half : height - half, half : width - half]
    counts, margin = _counts(inside), half
    if counts[-1] == 0:
        # Second choice: all unknown pixels; their window is moved inside below.
        counts, margin, inside = _counts(unknown), 0, unknown
    if counts[-1] == 0:
        return 0, 0
    # Pixels are numbered in reading order, and the number is drawn: every one has the same chance.
    row, column = _nth(inside, counts, int(rng.integers(counts[-1])))
    top = int(np.clip(row + margin - half, 0, height - side))
    left = int(np.clip(column + margin - half, 0, width - side))
    return top, left


def _counts(mask: UInt8) -> npt.NDArray[np.int64]:
    """Return the number of set pixels in the rows up to each row; a single 0 for an empty mask."""
    rows = np.count_nonzero(mask, axis=1).astype(np.int64)
    return np.cumsum(rows) if mask.size else np.zeros(1, np.int64)


def _nth(mask: UInt8, counts: npt.NDArray[np.int64], number: int) -> tuple[int, int]:
    """Return row and column of a set pixel by its number in reading order, without a list of all of them."""
    row = int(np.searchsorted(counts, number, side="right"))
    before = int(counts[row - 1]) if row else 0
    return row, int(np.flatnonzero(mask[row])[number - before])


def flip(layers: tuple[Layer, ...], rng: Random) -> tuple[Layer, ...]:
    """Mirror everything left-right with probability ½."""
    if rng.random() < 0.5:
        return layers
    return tuple(np.ascontiguousarray(layer[:, ::-1]) for layer in layers)


def resize(layers: tuple[Layer, ...], size: int) -> tuple[Layer, ...]:
    """Resize to a square of ``size`` pixels, bilinear as published; the same size is returned unchanged."""
    if layers[0].shape == (size, size):
        return layers
    return tuple(_resized(layer, (size, size)) for layer in layers)


def _resized(layer: Layer, size: tuple[int, int]) -> Layer:
    resized: Layer = cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR).astype(layer.dtype, copy=False)
    return resized


def random_trimap(alpha: UInt8, sizes: tuple[int, int], rng: Random) -> UInt8:
    """Draw a trimap of an alpha: sides of the eroding and dilating elements are independent and uniform.

    Args:
        alpha: uint8 H, W.
        sizes: smallest and largest side of an element, pixels.

    Returns:
        uint8 H, W: 0, 128, 255.
    """
    smallest, largest = sizes
    erode = int(rng.integers(smallest, largest + 1))
    dilate = int(rng.integers(smallest, largest + 1))
    return trimaps.from_alpha(alpha, erode=erode, dilate=dilate)


def composite(layers: Layers, exponent: float = 1.0) -> Float32:
    """Return ``(F^e·α + B^e·(1 − α))^(1/e)``, float32 0-255, not rounded (on-line composition).

    Args:
        exponent: e; the published 1 mixes encoded values. A camera mixes light, about the power 2.2 of them,
            before its tone curve.
    """
    alpha = layers.alpha[..., None].astype(np.float32) / np.float32(255)
    if exponent == 1:
        return _mixed(layers.foreground, layers.background, alpha)
    powers = ((np.arange(256) / 255) ** exponent).astype(np.float32)
    light = _mixed(cv2.LUT(layers.foreground, powers), cv2.LUT(layers.background, powers), alpha)
    return cv2.pow(light, 1 / exponent) * np.float32(255)


def _mixed(foreground: Layer, background: Layer, alpha: Float32) -> Float32:
    mixed: Float32 = foreground * alpha + background * (np.float32(1) - alpha)
    return mixed
