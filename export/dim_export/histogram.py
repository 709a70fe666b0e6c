"""The distribution of a tensor's magnitudes, in constant memory, and the range that int8 should cover."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dim.errors import InputError

Method = Literal["minmax", "percentile", "mse"]
"""How the range of an activation is chosen.

* minmax: the largest magnitude seen.
* percentile: the magnitude that only 1 of 10 000 values other than 0 exceeds.
* mse: the one that makes the mean squared error of rounding and clipping least.
"""

METHODS: tuple[Method, ...] = get_args(Method)

BINS = 4096
KEPT = 0.9999
"""Share of the values other than 0 that the method "percentile" does not clip."""
CANDIDATES = 200
_LEVELS = 127


class Histogram:
    """Counts of |x| in equal bins from 0 to a bound that doubles as larger values come; zeros are left out.

    Unpooling makes three values of four 0, which every range represents.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.float64] = np.zeros(BINS)
        self.bound = 0.0
        self.largest = 0.0

    def add(self, values: Tensor) -> None:
        """Count a floating-point tensor of any shape.

        Raises:
            InputError: it holds a NaN or an infinity.
        """
        magnitudes = values.detach().abs().float()
        largest = float(magnitudes.max())
        if not math.isfinite(largest):
            raise InputError(
                "cannot calibrate", got="an activation that is NaN or infinite", expected="numbers"
            )
        self._reach(largest)
        if self.bound == 0:
            return
        counted = torch.histc(magnitudes, BINS, 0, self.bound).numpy().astype(np.float64)
        counted[0] -= magnitudes.numel() - int(torch.count_nonzero(magnitudes))
        self.counts += counted

    def range(self, method: Method) -> float:
        """The largest magnitude that int8 should represent; 1 where nothing but zeros was seen."""
        if self.bound == 0 or self.counts.sum() <= 0:
            return 1.0
        if method == "minmax":
            return self.largest
        if method == "percentile":
            return min(self.largest, self._percentile(KEPT))
        return self._least_error()

    def _reach(self, largest: float) -> None:
        self.largest = max(self.largest, largest)
        if self.bound == 0 and largest > 0:
            self.bound = 2.0 ** math.ceil(math.log2(largest))
        while self.bound < largest:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([pairs, np.zeros(BINS // 2)])
            self.bound *= 2

    def _percentile(self, share: float) -> float:
        cumulative = np.cumsum(self.counts)
        place = int(np.searchsorted(cumulative, share * cumulative[-1]))
        return (place + 1) * self.bound / BINS

    def _least_error(self) -> float:
        centres = np.linspace(0, self.bound, BINS, endpoint=False) + self.bound / (2 * BINS)
        ranges = self.largest * np.arange(1, CANDIDATES + 1) / CANDIDATES
        return float(min(ranges.tolist(), key=lambda found: self._error(centres, found)))

    def _error(self, centres: npt.NDArray[np.float64], found: float) -> float:
        step = found / _LEVELS
        rounded = np.minimum(np.rint(centres / step), _LEVELS) * step
        return float(np.sum(self.counts * (centres - rounded) ** 2))
