"""Loader processes: batches of a run in order, from any sample on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import islice

import cv2
import torch
from torch.utils.data import DataLoader

from dim.errors import DimError
from dim_training.config import TrainConfig
from dim_training.data.dataset import GlobalOrder, MattingDataset, Sample, SceneDataset
from dim_training.data.on_device import PackedParts, PartsDataset
from dim_training.data.scenes import Scenes

Batch = tuple[Sample, ...] | tuple[PackedParts, ...]
"""One step's samples in ``accumulate`` parts."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals after which a run saves its state and ends."""


class TimedIterator(Iterator[Batch]):
    """An iterator that measures how long its consumer waits for it.

    Attributes:
        seconds: total of the waiting times so far.
    """

    def __init__(self, source: Iterator[Batch]) -> None:
        self.source, self.seconds = source, 0.0

    def __next__(self) -> Batch:
        started = time.monotonic()
        try:
            return next(self.source)
        finally:
            self.seconds += time.monotonic() - started


def build_loader(config: TrainConfig, scenes: Scenes, indices: range, *, pinned: bool) -> Iterator[Batch]:
    """Yield the batches of one process, in ``accumulate`` parts each; its processes start with the first.

    Args:
        indices: global numbers of this process's samples: sample i belongs to process i mod N.
        pinned: put the tensors into pinned memory, for a GPU.

    Raises:
        DimError: a sample cannot be made, such as from a damaged file.
    """
    # Loader processes may be forked: OpenCV's thread pool, once used in the parent, would hang in them.
    cv2.setNumThreads(0)
    data = config.data
    kind: type[SceneDataset[Sample]] | type[SceneDataset[PackedParts]] = (
        PartsDataset if data.compose == "device" else MattingDataset
    )
    loader = DataLoader(
        kind(scenes, data.trimap_sizes, seed=config.seed, length=indices.stop),
        batch_size=config.batch // config.accumulate,
        sampler=GlobalOrder(indices.start, indices.stop, indices.step),
        num_workers=data.workers,
        worker_init_fn=quiet_worker,
        prefetch_factor=4 if data.workers else None,
        pin_memory=pinned,
    )
    batches = iter(loader)
    try:
        while parts := tuple(islice(batches, config.accumulate)):
            yield parts
    except DimError as error:
        raise as_raised(error) from None


def as_raised(error: DimError) -> DimError:
    """Return the error of a loader process without the traceback that torch puts before its text."""
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    _, found, text = str(error).rpartition(name)
    return type(error)(text.rstrip()) if found else error


def quiet_worker(_: int) -> None:
    """Use one thread in each loader process, and leave signals to the parent.

    Ctrl-C, ``timeout`` and batch systems signal the whole group of processes. The parent still needs its
    loaders for the step in progress; they end with it.
    """
    torch.set_num_threads(1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
