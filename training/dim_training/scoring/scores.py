"""Scores of predicted alphas and their means. No torch here: worker processes import this module."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from dim import metrics
from dim.arrays import UInt8
from dim.metrics import Metrics
from dim.trimap import apply_known


class Region(StrEnum):
    """Which pixels count.

    The two differ only where the truth contradicts the trimap: a prediction never does.

    Attributes:
        ALL: every pixel, as the published tables have it.
        UNKNOWN: truth is taken from the trimap where that is known, so that only unknown pixels can differ.
    """

    ALL = "all"
    UNKNOWN = "unknown"


class Score(NamedTuple):
    """The four published errors of one photograph, and the seconds that its prediction took."""

    name: str
    sad: float
    mse: float
    grad: float
    conn: float
    seconds: float

    @property
    def metrics(self) -> Metrics:
        """The four errors alone."""
        return Metrics(self.sad, self.mse, self.grad, self.conn)


def score(
    name: str, alpha: UInt8, truth: UInt8, trimap: UInt8, *, region: Region, seconds: float = 0.0
) -> Score:
    """Score one photograph.

    Args:
        name: name of the photograph.
        alpha: prediction, uint8 H, W; agrees with the trimap's known pixels.
        truth: true alpha, uint8 H, W.
        trimap: canonical, uint8 H, W.
        region: which pixels count.
        seconds: duration of the prediction.
    """
    if region is Region.UNKNOWN:
        truth = apply_known(truth, trimap)
    return Score(name, *metrics.all_metrics(alpha, truth, trimap), seconds)


def mean_scores(scores: Sequence[Score]) -> Metrics:
    """Return the unweighted means over the photographs, as published."""
    return Metrics(*np.mean([item.metrics for item in scores], axis=0).tolist())
