"""Histograms of magnitudes by channel in constant memory, and the ranges that int8 should represent."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dim.arrays import Float64
from dim.errors import InputError
from dim_export.int8 import Method

BINS = 1024
"""Bins of a channel, 8 bytes each: 55 MB for the 6.7 thousand channels of the published network."""
KEPT = 0.9999
"""Share of the values other than 0 that the method "percentile" does not clip."""
CANDIDATES = 100
"""Ranges that the method "mse" compares: hundredths of the largest magnitude."""
_LEVELS = 127
"""Largest magnitude of an int8 value."""


class Histogram:
    """Counts of |x| for each channel, in equal bins from 0 to a bound that doubles when larger values occur.

    Zeros are not counted: unpooling makes three of four values 0, which every range represents.

    Attributes:
        counts: float64 C, BINS.
        bounds: float64 C, upper edge of the last bin; 0 while all values are 0.
        largest: float64 C, the largest magnitudes.
    """

    def __init__(self, channels: int) -> None:
        self.counts: Float64 = np.zeros((channels, BINS))
        self.bounds: Float64 = np.zeros(channels)
        self.largest: Float64 = np.zeros(channels)

    def add(self, values: Tensor) -> None:
        """Count a floating-point tensor N, C, H, W.

        Raises:
            InputError: it holds a NaN or an infinity.
        """
        magnitudes = values.detach().abs().float().transpose(0, 1).flatten(1).contiguous()
        largest = magnitudes.amax(1).numpy().astype(np.float64)
        if not np.isfinite(largest).all():
            raise InputError(
                "cannot calibrate", got="an activation that is NaN or infinite", expected="numbers"
            )
        zeros = magnitudes.shape[1] - torch.count_nonzero(magnitudes, 1).numpy()
        for channel, row in enumerate(magnitudes):
            self._reach(channel, float(largest[channel]))
            if self.bounds[channel] > 0:
                counted = torch.histc(row, BINS, 0, float(self.bounds[channel])).numpy().astype(np.float64)
                counted[0] -= zeros[channel]
                self.counts[channel] += counted

    def ranges(self, method: Method) -> Float64:
        """Return float64 C, the largest magnitude that int8 should represent in each channel separately.

        A channel whose values are all 0 gets the range of the widest channel, or 1 if all channels are 0.
        """
        found = np.array([self._range(channel, method) for channel in range(len(self.bounds))])
        return np.where(found > 0, found, found.max() or 1.0)

    def _range(self, channel: int, method: Method) -> float:
        if self.counts[channel].sum() <= 0:
            return 0.0
        if method == "minmax":
            return float(self.largest[channel])
        if method == "percentile":
            return min(float(self.largest[channel]), self._percentile(channel))
        return self._least_error(channel)

    def _reach(self, channel: int, largest: float) -> None:
        self.largest[channel] = max(self.largest[channel], largest)
        if self.bounds[channel] == 0 and largest > 0:
            self.bounds[channel] = 2.0 ** math.ceil(math.log2(largest))
        while self.bounds[channel] < largest:
            pairs = self.counts[channel].reshape(-1, 2).sum(1)
            self.counts[channel] = np.concatenate([pairs, np.zeros(BINS // 2)])
            self.bounds[channel] *= 2

    def _percentile(self, channel: int) -> float:
        cumulative = np.cumsum(self.counts[channel])
        place = int(np.searchsorted(cumulative, KEPT * cumulative[-1]))
        return float((place + 1) * self.bounds[channel] / BINS)

    def _least_error(self, channel: int) -> float:
        counts, bound = self.counts[channel], self.bounds[channel]
        centres = (np.arange(BINS) + 0.5) * (bound / BINS)
        candidates = self.largest[channel] * np.arange(1, CANDIDATES + 1) / CANDIDATES
        steps = candidates[:, None] / _LEVELS
        rounded = np.minimum(np.rint(centres / steps), _LEVELS) * steps
        errors = (counts * (centres - rounded) ** 2).sum(1)
        return float(candidates[errors.argmin()])
