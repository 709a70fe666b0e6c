"""Score photographs one by one: predict in this process, compute the metrics in others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dim.arrays import UInt8
from dim.images.files import write_image
from dim.trimap import apply_known
from dim_runtime.images.pairs import MattingSample
from dim_training.processes import worker_processes
from dim_training.scoring.photographs import read_saved
from dim_training.scoring.predictors import Predictor, ValidationPredictor
from dim_training.scoring.scores import Region, Score, score

if TYPE_CHECKING:
    from dim.network import DIM

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
        photographs: with alphas; :func:`dim_training.scoring.photographs.prefetched` holds two at a time.
        region: which pixels count.
        workers: processes that compute metrics meanwhile; 0 computes them between two predictions.
        alphas: folder for the predictions, ``NAME.png``, gray, 8 bits; None writes none.
    """
    return _scored(_predicted(predictor, photographs, alphas), region=region, workers=workers)


def evaluate_saved(
    predictions: Mapping[str, Path], photographs: Iterable[MattingSample], *, region: Region, workers: int = 0
) -> Iterator[Score]:
    """Score alphas that a program has saved; the other arguments are those of :func:`evaluate`.

    Known pixels are set from the trimap, as every predictor sets them.

    Args:
        predictions: the files of all photographs, from :func:`dim_training.scoring.photographs.find_saved`.

    Raises:
        InputError: a file that is no alpha, or one of another size.
    """
    return _scored(_saved(predictions, photographs), region=region, workers=workers)


class _Predicted(NamedTuple):
    """A photograph with an alpha of it, uint8 H, W, and the seconds that the prediction took."""

    photo: MattingSample
    alpha: UInt8
    seconds: float


def _predicted(
    predictor: Predictor, photographs: Iterable[MattingSample], alphas: Path | None
) -> Iterator[_Predicted]:
    for photo in photographs:
        alpha, seconds = _timed(predictor, photo)
        if alphas is not None:
            write_image(alphas / f"{photo.name}.png", alpha)
        yield _Predicted(photo, alpha, seconds)


def _saved(predictions: Mapping[str, Path], photographs: Iterable[MattingSample]) -> Iterator[_Predicted]:
    for photo in photographs:
        alpha = read_saved(predictions[photo.name], photo)
        yield _Predicted(photo, apply_known(alpha, photo.trimap), 0.0)


def _scored(predicted: Iterable[_Predicted], *, region: Region, workers: int) -> Iterator[Score]:
    waiting: deque[Future[Score]] = deque()
    with worker_processes(workers, fix="fewer --workers; 0 computes the metrics in the main process") as pool:
        for photo, alpha, seconds in predicted:
            assert photo.alpha is not None, "photographs that are scored have an alpha"
            task = partial(
                score, photo.name, alpha, photo.alpha, photo.trimap, region=region, seconds=seconds
            )
            waiting.append(pool.submit(task))
            while len(waiting) > WAITING_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def score_network(
    model: DIM,
    photographs: Iterable[MattingSample],
    *,
    note: Callable[[str], None],
    region: Region = Region.UNKNOWN,
) -> list[Score]:
    """Score a network in eval mode, one photograph after the other, in this process.

    Args:
        note: called with one line for each photograph that the CPU predicts because of its size.
    """
    return list(evaluate(ValidationPredictor(model, note), photographs, region=region))


def _timed(predictor: Predictor, photograph: MattingSample) -> tuple[UInt8, float]:
    """Return the prediction, and the seconds that it took."""
    started = time.perf_counter()
    alpha = predictor(photograph.image, photograph.trimap)
    return alpha, time.perf_counter() - started
