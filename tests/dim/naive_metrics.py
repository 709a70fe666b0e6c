"""The four metrics written down as they are defined: whole images, one statement per step, no short cuts.

What the fast ones in :mod:`dim.metrics` are compared with, in value and in time. Nothing is validated.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from dim.arrays import Array, UInt8


def sad(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    p, g = alpha.astype(np.float64) / 255, truth.astype(np.float64) / 255
    return float(np.abs(p - g).sum() / 1000)


def mse(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    p, g = alpha.astype(np.float64) / 255, truth.astype(np.float64) / 255
    pixels = (trimap == 128).sum()
    return float(((p - g) ** 2).sum() / pixels) if pixels else 0.0


def grad(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    difference = _gradient_magnitude(truth) - _gradient_magnitude(alpha)
    return float((difference**2 * (trimap == 128)).sum(dtype=np.float64) / 1000)


def conn(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    p, g = alpha.astype(np.float32) / np.float32(255), truth.astype(np.float32) / np.float32(255)
    level = _level(p, g)
    difference = np.abs(_connectivity(g, level) - _connectivity(p, level))
    return float((difference * (trimap == 128)).sum(dtype=np.float64) / 1000)


def _gradient_magnitude(alpha: UInt8) -> Array:
    stretched = cv2.normalize(alpha.astype(np.float64), None, 1.0, 0.0, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    x_filter = _gaussian_derivative(1.4)
    gx = cv2.filter2D(stretched, -1, x_filter, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.filter2D(stretched, -1, x_filter.T, borderType=cv2.BORDER_REPLICATE)
    magnitude: Array = np.sqrt(gx**2 + gy**2).astype(np.float32)
    return magnitude


def _gaussian_derivative(sigma: float) -> Array:
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))
    x_filter = np.zeros((2 * half + 1, 2 * half + 1))
    for i in range(2 * half + 1):
        for j in range(2 * half + 1):
            x_filter[i, j] = _normal(i - half, sigma) * -(j - half) * _normal(j - half, sigma) / sigma**2
    x_filter /= np.sqrt((x_filter**2).sum())
    return x_filter


def _normal(x: float, sigma: float) -> float:
    return math.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))


def _level(p: Array, g: Array) -> Array:
    thresholds = [np.float32(i * 0.1) for i in range(11)]
    level = np.full(p.shape, -1, np.float32)
    for i in range(1, 11):
        omega = _largest_component((g >= thresholds[i]) & (p >= thresholds[i]))
        level[(level == -1) & ~omega] = thresholds[i - 1]
    level[level == -1] = 1
    return level


def _largest_component(mask: Array) -> Array:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    omega: Array = labels == 1 + np.argmax(areas) if len(areas) else np.zeros(mask.shape, np.bool_)
    return omega


def _connectivity(values: Array, level: Array) -> Array:
    excess = values - level
    connectivity: Array = 1 - excess * (excess >= np.float32(0.15))
    return connectivity
