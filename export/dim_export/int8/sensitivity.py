"""Measure the error that int8 adds in each layer, to choose the layers that stay in float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
from onnxscript import ir
from pydantic import computed_field

import dim.trimap as trimaps
from dim import checkpoint
from dim.arrays import UInt8
from dim.frozen_model import FrozenModel
from dim.metrics import sad
from dim_export.graph.onnx_file import describe, write
from dim_export.graph.trace import trace
from dim_export.int8 import Method, Mode
from dim_export.int8.calibration import CalibrationPairs, calibrate
from dim_export.int8.equalisation import Equalised, equalise
from dim_export.int8.quantise import convolution_names, quantise, require_layers
from dim_runtime.backends.open import open_backend
from dim_runtime.images.pairs import MattingSample, read_samples
from dim_runtime.matting import Matting

Progress = Callable[[int, int], None]


class LayerCost(FrozenModel):
    """One convolution. ``sad`` is the mean over the pairs with only it, or all but it, in int8."""

    layer: str
    sad: float


class Sensitivity(FrozenModel):
    """The error of each layer.

    Attributes:
        against: "truth" where the pairs have alphas, else "fp32": the SAD of the difference from the float32
            graph.
        fp32_sad: mean SAD of the float32 graph; 0 against itself.
        int8_sad: mean SAD with every convolution in int8.
        layers: the layer with the largest effect first.
    """

    checkpoint: str
    method: Method
    mode: Mode
    against: Literal["truth", "fp32"]
    pairs: int
    fp32_sad: float
    int8_sad: float
    layers: tuple[LayerCost, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def base_sad(self) -> float:
        """SAD that a layer is compared with: float32 in the mode "alone", all int8 in "spared"."""
        return self.fp32_sad if self.mode == "alone" else self.int8_sad


def measure(
    source: Path,
    data: Path,
    *,
    method: Method,
    mode: Mode = "alone",
    calibration: Path | None = None,
    layers: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Score a network once for each convolution, in ONNX Runtime.

    Args:
        source: checkpoint.
        data: folder of ``images/``, ``trimaps/`` and, to score against the truth, ``alphas/``.
        method: method that chooses the ranges of the activations.
        mode: whether each layer alone is in int8, or all layers but it.
        calibration: folder of pairs to calibrate on; None for the shipped ones.
        layers: convolutions to measure; None for all.
        threads: threads of the engine; None leaves the choice to the engine.
        progress: called with the graphs scored and the total.

    Raises:
        CheckpointError, InputError, MissingExtraError: an unusable file, or a missing package.
    """
    model = checkpoint.load(source)
    pairs = list(read_samples(data))
    against: Literal["truth", "fp32"] = "fp32" if pairs[0].alpha is None else "truth"
    seen = calibrate(model, CalibrationPairs(calibration))
    scorer = _Scorer(equalise(model, seen.channel_ranges(method)), threads)
    if against == "fp32":
        pairs = scorer.with_own_truth(pairs)
    chosen = list(scorer.names if layers is None else layers)
    require_layers(chosen, scorer.names)
    steps = [scorer.names, [], *(_kept(name, scorer.names, mode) for name in chosen)]
    found = []
    for done, keep in enumerate(steps, start=1):
        found.append(scorer.score(pairs, keep_float=keep))
        if progress is not None:
            progress(done, len(steps))
    costs = [LayerCost(layer=name, sad=value) for name, value in zip(chosen, found[2:], strict=True)]
    return Sensitivity(
        checkpoint=source.name,
        method=method,
        mode=mode,
        against=against,
        pairs=len(pairs),
        fp32_sad=found[0],
        int8_sad=found[1],
        layers=tuple(sorted(costs, key=lambda cost: cost.sad, reverse=mode == "alone")),
    )


class _Scorer:
    """Runs a network with some of its convolutions in int8."""

    def __init__(self, network: Equalised, threads: int | None) -> None:
        self._ranges, self._threads = network.ranges, threads
        self._metadata = describe(network.model, checkpoint_sha256="")
        # Keep the graph as a message, because quantisation changes graphs in place.
        self._graph = ir.to_proto(trace(network.model))
        self.names = convolution_names(ir.from_proto(self._graph))

    def score(self, pairs: Sequence[MattingSample], *, keep_float: Sequence[str]) -> float:
        """Return the SAD over unknown pixels, in thousands, averaged over the pairs."""
        return float(np.mean(list(map(_sad, pairs, self._alphas(pairs, keep_float)))))

    def with_own_truth(self, pairs: Sequence[MattingSample]) -> list[MattingSample]:
        """Return the pairs with the float32 graph's alphas as the truth."""
        alphas = self._alphas(pairs, self.names)
        return [pair._replace(alpha=alpha) for pair, alpha in zip(pairs, alphas, strict=True)]

    def _alphas(self, pairs: Sequence[MattingSample], keep_float: Sequence[str]) -> Iterator[UInt8]:
        graph = quantise(ir.from_proto(self._graph), self._ranges, keep_float=keep_float)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write(graph, self._metadata, path)
            with closing(open_backend(path, threads=self._threads)) as backend:
                matting = Matting.from_backend(backend)
                for pair in pairs:
                    yield np.rint(matting(pair.image, pair.trimap) * 255).astype(np.uint8)


def _sad(pair: MattingSample, alpha: UInt8) -> float:
    assert pair.alpha is not None
    truth = np.where(pair.trimap == trimaps.UNKNOWN, pair.alpha, alpha).astype(np.uint8)
    return sad(alpha, truth, pair.trimap)


def _kept(layer: str, names: Sequence[str], mode: Mode) -> list[str]:
    return [layer] if mode == "spared" else [name for name in names if name != layer]
