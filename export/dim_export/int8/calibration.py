"""Measure the inputs of a network's convolutions on real pairs: the ranges that int8 must represent.

The network runs in PyTorch through the runtime, on windows around unknown pixels. The result has a histogram
for each channel that a convolution reads and, for the first pairs, a sample of the alphas.
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
"""Largest side of a window, pixels. Only the parts of an image around unknown pixels are run."""
CONTEXT = 64
"""Context of a window, pixels. It need not be exact, because only the distribution matters."""

SAMPLED_PAIRS, SAMPLED_PIXELS = 32, 20_000
"""Alphas are kept of this many pairs, and of at most this many pixels of each: 16 bytes a pixel, 10 MB."""

Progress = Callable[[int, int], None]
"""Called with the pairs done and the total."""


class AlphaSample(NamedTuple):
    """The float network's alpha in some unknown pixels of one pair, those where it is between 0.05 and 0.95.

    Attributes:
        pixels: int64 N, indices into the flattened image.
        alpha: floating N, in [0, 1].
    """

    pixels: npt.NDArray[np.int64]
    alpha: Floating


class Calibration(NamedTuple):
    """The result of a calibration.

    Attributes:
        histograms: magnitudes of each convolution's input, by the convolution's name.
        windows: number of windows that were run.
        largest_output: largest magnitude in the output of any convolution.
        samples: alphas of the first pairs, in their order.
    """

    histograms: dict[str, Histogram]
    windows: int
    largest_output: float
    samples: tuple[AlphaSample, ...]

    def channel_ranges(self, method: Method) -> dict[str, Float64]:
        """Return the largest magnitude that int8 should represent in each channel of each input."""
        return {name: histogram.ranges(method) for name, histogram in self.histograms.items()}

    def ranges(self, method: Method) -> dict[str, float]:
        """Return the largest magnitude that int8 should represent at the input of each convolution."""
        return {name: float(found.max()) for name, found in self.channel_ranges(method).items()}


def default_folder() -> Path:
    """Return the folder of the shipped pairs: composites of training data, see its README."""
    return Path(__file__).parent / "calibration_set"


class CalibrationPairs:
    """The pairs of a folder, read one at a time. The default is the shipped pairs and photograph.

    Args:
        folder: holds ``images/NAME.*`` and ``trimaps/NAME.*``; None for the default.

    Raises:
        InputError: a folder that is missing or empty, or names whose files are missing or ambiguous.
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
    """Run a network on pairs and measure the input of every convolution.

    Args:
        model: any network; it is not changed.
        pairs: images and trimaps.
        progress: called after each pair.

    Raises:
        InputError: no unknown pixel in any of the pairs, or an activation that is not finite.
    """
    backend = _ObservedBackend(model)
    matting = calibration_windows(backend)
    samples: list[AlphaSample] = []
    for done, pair in enumerate(pairs, start=1):
        alpha = matting(pair.image, pair.trimap)
        if done <= SAMPLED_PAIRS:
            samples.append(_sampled(alpha, pair.trimap))
        if progress is not None:
            progress(done, len(pairs))
    if backend.windows == 0:
        raise InputError(
            "cannot calibrate",
            got=f"{len(pairs)} pairs without an unknown pixel",
            expected="trimaps with unknown pixels (128)",
        )
    return Calibration(backend.histograms, backend.windows, backend.largest_output, tuple(samples))


def calibration_windows(backend: Backend) -> Matting:
    """Return a back end as a :class:`Matting` that runs the windows of calibration."""
    return Matting.from_backend(backend, tile=TILE, context=CONTEXT)


def _sampled(alpha: Floating, trimap: UInt8) -> AlphaSample:
    pixels = np.flatnonzero(trimaps.unknown(trimap) & graded(alpha))
    if len(pixels) > SAMPLED_PIXELS:
        pixels = np.random.default_rng(0).choice(pixels, SAMPLED_PIXELS, replace=False)
    return AlphaSample(pixels, alpha.ravel()[pixels])


class _ObservedBackend(TorchBackend):
    """PyTorch with a histogram before each convolution; batch norm is folded as in the exported graph."""

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
        """Run a batch as the base class does, and record the inputs of every convolution."""
        self.windows += len(image)
        with self._hooks():
            return super().run(image, trimap)

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._recorder(self.histograms[name]))
            for name, module in self._convolutions.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _recorder(self, histogram: Histogram) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            histogram.add(inputs[0])
            self.largest_output = max(self.largest_output, float(output.abs().max()))

        return record
