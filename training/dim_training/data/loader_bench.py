"""Speed of a recipe's data pipeline, without any network."""

from __future__ import annotations

import cProfile
import io
import pstats
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
from torch.utils.data import DataLoader

from dim.errors import InputError
from dim_training.config import TrainConfig
from dim_training.data.dataset import GlobalOrder, MattingDataset, build_dataset
from dim_training.data.loader import quiet_worker
from dim_training.data.on_device import PartsDataset, build_parts
from dim_training.data.procedural.picture_set import write_drawn_set

WARM_UP = 32
"""Samples that are made before the clock starts: processes begin, caches fill."""
PROFILED = 40
"""Samples made in this process under the profiler."""
ROWS = 12


class LoaderBench(NamedTuple):
    """Samples a second of all loader processes together, and the profile of one of them."""

    samples_per_second: float
    workers: int
    profile: str


def bench(config: TrainConfig, *, samples: int) -> LoaderBench:
    """Time ``samples`` samples of a recipe, loaded as training loads them."""
    cv2.setNumThreads(0)
    build = build_parts if config.data.compose == "device" else build_dataset
    dataset = build(config.data, seed=config.seed, length=WARM_UP + samples)
    profile = _profile(dataset)
    loader = DataLoader(
        dataset,
        batch_size=1,
        sampler=GlobalOrder(0, WARM_UP + samples),
        num_workers=config.data.workers,
        worker_init_fn=quiet_worker,
    )
    started = 0.0
    for number, _ in enumerate(loader, start=1):
        if number == WARM_UP:
            started = time.perf_counter()
    return LoaderBench(samples / (time.perf_counter() - started), config.data.workers, profile)


def bench_drawn(config: TrainConfig, megapixels: float, *, samples: int) -> LoaderBench:
    """Time a recipe with files of drawn pictures of this size, in a temporary folder.

    Raises:
        InputError: a recipe that reads no files.
    """
    if config.data.kind == "procedural":
        raise InputError(
            "cannot time drawn files",
            got="data.kind=procedural, which reads none",
            fix="leave out --drawn, or --set data.kind=rgba",
        )
    with tempfile.TemporaryDirectory() as folder:
        write_drawn_set(Path(folder), megapixels=megapixels)
        data = config.data.model_copy(update={"root": Path(folder), "weights": {}, "tinted": ()})
        return bench(config.model_copy(update={"data": data}), samples=samples)


def _profile(dataset: MattingDataset | PartsDataset) -> str:
    profiler = cProfile.Profile()
    with profiler:
        for index in range(PROFILED):
            dataset[index]
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(ROWS)
    return text.getvalue().strip()
