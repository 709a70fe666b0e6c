"""What the convolutions of a network see on real pairs: the ranges that int8 must represent.

The network runs in PyTorch through the runtime, on windows around unknown pixels. Kept are a histogram for
each channel that a convolution reads and, of the first pairs, some of the answers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from dim import trimap as trimaps
from dim.arrays import Float64, Floating, UInt8
from dim.errors import InputError
from dim.network import DIM
from dim.network.folding import fold_batch_norm
from dim_export.graph.torch_backend import TorchBackend
from dim_export.int8 import Method
from dim_export.int8.histogram import Histogram
from dim_export.parity.comparison import graded
from dim_runtime.backends.base import Backend
from dim_runtime.images.pairs import MattingSample, find_pairs, read_sample
from dim_runtime.images.samples import lemur
from dim_runtime.matting import Matting

TILE = 512
"""Largest side of a window, pixels: large images are looked at only where they are unknown."""
CONTEXT = 64
"""Pixels around unknown ones that a window shows. The distribution needs no exact borders."""

ANSWERED_PAIRS, ANSWERED_PIXELS = 32, 20_000
"""How many pairs, and how many pixels of each, answers are kept of: 16 bytes a pixel, 10 MB."""

Progress = Callable[[int, int], None]
"""Called with the pairs done and in all."""


class Answer(NamedTuple):
    """What the network said of some unknown pixels of one pair, those of which it is not sure.

    Attributes:
        pixels: int64 N, places in the flattened image.
        alpha: floating N.
    """

    pixels: npt.NDArray[np.int64]
    alpha: Floating


class Calibration(NamedTuple):
    """What was seen.

    Attributes:
        histograms: magnitudes of each convolution's input, by its name.
        windows: how many windows the network saw.
        largest_output: the largest magnitude that any convolution wrote.
        answers: of the first pairs, in their order.
    """

    histograms: dict[str, Histogram]
    windows: int
    largest_output: float
    answers: tuple[Answer, ...]

    def channel_ranges(self, method: Method) -> dict[str, Float64]:
        """The largest magnitude that int8 should represent of each channel of each convolution's input."""
        return {name: histogram.ranges(method) for name, histogram in self.histograms.items()}

    def ranges(self, method: Method) -> dict[str, float]:
        """The largest magnitude that int8 should represent at the input of each convolution."""
        return {name: float(found.max()) for name, found in self.channel_ranges(method).items()}


def default_folder() -> Path:
    """The pairs that ship with the exporter: composites of training data, see its README."""
    return Path(__file__).parent / "calibration_set"


class CalibrationPairs:
    """The pairs of a folder, read one at a time; by default those that ship, and the shipped photograph.

    Args:
        folder: ``images/NAME.*`` and ``trimaps/NAME.*``; None for what ships.

    Raises:
        InputError: no such folder, nothing in it, or names whose files are missing or ambiguous.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = find_pairs(folder or default_folder())
        self._with_sample = folder is None

    def __len__(self) -> int:
        return len(self._files) + self._with_sample

    def __iter__(self) -> Iterator[MattingSample]:
        yield from map(read_sample, self._files)
        if self._with_sample:
            yield MattingSample(*lemur())


def calibrate(
    model: DIM, pairs: CalibrationPairs | Sequence[MattingSample], *, progress: Progress | None = None
) -> Calibration:
    """Run a network on pairs and look at every convolution.

    Raises:
        InputError: no unknown pixel in any of the pairs, or an activation that is not finite.
    """
    backend = _ObservedBackend(model)
    matting = calibration_windows(backend)
    answers: list[Answer] = []
    for done, pair in enumerate(pairs, start=1):
        alpha = matting(pair.image, pair.trimap)
        if done <= ANSWERED_PAIRS:
            answers.append(_answer(alpha, pair.trimap))
        if progress is not None:
            progress(done, len(pairs))
    if backend.windows == 0:
        raise InputError(
            "cannot calibrate",
            got=f"{len(pairs)} pairs without an unknown pixel",
            expected="trimaps with unknown pixels (128)",
        )
    return Calibration(backend.histograms, backend.windows, backend.largest_output, tuple(answers))


def calibration_windows(backend: Backend) -> Matting:
    """A back end on the windows that calibration looks at."""
    return Matting.from_backend(backend, tile=TILE, context=CONTEXT)


def _answer(alpha: Floating, trimap: UInt8) -> Answer:
    pixels = np.flatnonzero(trimaps.unknown(trimap) & graded(alpha))
    if len(pixels) > ANSWERED_PIXELS:
        pixels = np.random.default_rng(0).choice(pixels, ANSWERED_PIXELS, replace=False)
    return Answer(pixels, alpha.ravel()[pixels])


class _ObservedBackend(TorchBackend):
    """PyTorch, batch norm folded as in the exported graph, with a histogram before each convolution."""

    def __init__(self, model: DIM) -> None:
        # The base class changes the memory layout in place.
        folded = copy.deepcopy(fold_batch_norm(model))
        super().__init__(folded, channels_last=True)
        self.windows = 0
        self.largest_output = 0.0
        self._convolutions = {
            name: module for name, module in folded.named_modules() if isinstance(module, nn.Conv2d)
        }
        self.histograms = {name: Histogram(module.in_channels) for name, module in self._convolutions.items()}

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """As the base class, looking at every convolution."""
        self.windows += len(image)
        with self._looking():
            return super().run(image, trimap)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._look_at(self.histograms[name]))
            for name, module in self._convolutions.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look_at(self, histogram: Histogram) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            histogram.add(inputs[0])
            self.largest_output = max(self.largest_output, float(output.abs().max()))

        return look
