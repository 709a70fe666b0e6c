"""The published test: every photograph predicted as a whole, four errors each, unweighted means."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dim.arrays import UInt8
from dim.images.files import write_image
from dim_runtime.images.pairs import MattingSample
from dim_training.metric_workers import metric_workers
from dim_training.scoring.predictors import Predictor
from dim_training.scoring.scores import Region, Score, mean_sad, mean_scores, score

if TYPE_CHECKING:
    from dim.network import DIM

__all__ = [
    "Region",
    "Score",
    "evaluate",
    "mean_sad",
    "mean_scores",
    "predict",
    "score_network",
]

WAITING_PER_WORKER = 2
"""Predictions that may wait for each metrics worker: memory stays bounded where the network is faster."""


def evaluate(
    predictor: Predictor,
    photographs: Iterable[MattingSample],
    *,
    region: Region,
    workers: int = 0,
    alphas: Path | None = None,
) -> Iterator[Score]:
    """Predict and score photographs; the scores come in the photographs' order.

    Args:
        predictor: image and trimap to alpha.
        photographs: what to score; :func:`dim_training.scoring.photographs.prefetched` holds two of them at
        a time. region: which pixels count.
        workers: processes that compute metrics meanwhile; 0 computes them between two predictions.
        alphas: folder for the predictions, ``NAME.png``, gray, 8 bits; None writes none.
    """
    waiting: deque[Future[Score]] = deque()
    with metric_workers(workers) as pool:
        for photo in photographs:
            assert photo.alpha is not None, "photographs that are scored have an alpha"
            alpha, seconds = _timed(predictor, photo)
            if alphas is not None:
                write_image(alphas / f"{photo.name}.png", alpha)
            task = partial(
                score, photo.name, alpha, photo.alpha, photo.trimap, region=region, seconds=seconds
            )
            waiting.append(pool.submit(task))
            while len(waiting) > WAITING_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def score_network(
    model: DIM, photographs: Iterable[MattingSample], *, region: Region = Region.UNKNOWN
) -> list[Score]:
    """Scores of a network in eval mode, one photograph after the other, in this process."""
    return list(evaluate(partial(predict, model), photographs, region=region))


def predict(model: DIM, image: UInt8, trimap: UInt8) -> UInt8:
    """:func:`dim_training.scoring.prediction.predict`; PyTorch is loaded only when it is called."""
    from dim_training.scoring.prediction import predict as predict_whole

    return predict_whole(model, image, trimap)


def _timed(predictor: Predictor, photograph: MattingSample) -> tuple[UInt8, float]:
    """The prediction, and the seconds that it took."""
    started = time.perf_counter()
    alpha = predictor(photograph.image, photograph.trimap)
    return alpha, time.perf_counter() - started
