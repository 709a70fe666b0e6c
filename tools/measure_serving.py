"""Compare models on inference servers with the engine in this process: alphas, and windows per second.

    python tools/measure_serving.py model.onnx PHOTOGRAPHS http://localhost:8000/model grpc://localhost:8001/model

PHOTOGRAPHS holds ``images/`` and ``trimaps/``; MODEL.onnx is the served artefact with free shapes. Windows
per second are ratios to those of this process with one thread, measured in turn, because a busy machine slows
all of them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dim.arrays import Float32, Floating, UInt8
from dim.contract import ArtefactMetadata
from dim_runtime import Matting
from dim_runtime.backends.base import Backend
from dim_runtime.backends.kserve import KServeBackend
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.errors import ArtefactError, FrozenShapeWarning
from dim_runtime.images.pairs import MattingSample, read_samples


class Local(Backend):
    """The engine here, with the windows that a server takes.

    Args:
        engine: has free shapes.
        metadata: the served artefact's document.
    """

    def __init__(self, engine: Backend, metadata: ArtefactMetadata) -> None:
        self._engine, self._metadata = engine, metadata

    @property
    def metadata(self) -> ArtefactMetadata:
        """The served artefact's document."""
        return self._metadata

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Run the windows here."""
        return self._engine.run(image, trimap)


def connect(address: str, model: Path, in_flight: int) -> KServeBackend:
    """Return the model at URL/NAME; a server without the document gets that of the file."""
    url, _, name = address.rpartition("/")
    try:
        return KServeBackend(url, name, windows_in_flight=in_flight, timeout=600)
    except ArtefactError:
        return KServeBackend(url, name, windows_in_flight=in_flight, timeout=600, metadata=model)


class Here(NamedTuple):
    """Alphas of the photographs, computed in this process, and the windows of the first one."""

    alphas: list[Float32]
    windows: int


def compute_here(local: Matting, samples: Sequence[MattingSample]) -> Here:
    """Return the alphas that the servers must return too."""
    alphas = [np.empty(sample.trimap.shape, np.float32) for sample in samples]
    plans = [
        local.into(sample.image, sample.trimap, alpha) for sample, alpha in zip(samples, alphas, strict=True)
    ]
    return Here(alphas, len(plans[0].windows))


def compare(here: Here, far: Matting, samples: Sequence[MattingSample]) -> str:
    """Return how many photographs have equal alphas, and the largest difference."""
    pairs = [
        (alpha, far(sample.image, sample.trimap)) for alpha, sample in zip(here.alphas, samples, strict=True)
    ]
    equal = sum(np.array_equal(*pair) for pair in pairs)
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    return f"{equal} of {len(pairs)}" + (f" (largest difference {largest:.1g})" if largest else "")


def seconds(matting: Matting, sample: MattingSample) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    matting(sample.image, sample.trimap)
    return time.perf_counter() - started


class Measurement:
    """Rows of the table; alphas of one kind of window are computed here once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.samples = list(islice(read_samples(options.photographs), options.count))
        self.engine = OnnxRuntimeBackend(options.model, threads=1)
        self._here: dict[object, Here] = {}

    def row(self, address: str) -> list[str]:
        """Return the model, the alphas that are equal, windows, and speeds."""
        options = self.options
        with ExitStack() as stack:
            backends = [
                stack.enter_context(closing(connect(address, options.model, n))) for n in options.clients
            ]
            metadata = backends[0].metadata
            local, *far = (
                Matting.from_backend(backend, tile=options.tile, context=options.context)
                for backend in (Local(self.engine, metadata), *backends)
            )
            if metadata.static_shape not in self._here:
                self._here[metadata.static_shape] = compute_here(local, self.samples)
            here = self._here[metadata.static_shape]
            return [
                address,
                compare(here, far[-1], self.samples),
                str(here.windows),
                *self._speeds(local, far),
            ]

    def _speeds(self, local: Matting, far: Sequence[Matting]) -> list[str]:
        """Return the speeds of the servers, where 1 is that of this process."""
        if not self.options.rounds:
            return ["" for _ in far]
        sample = self.samples[0]
        rounds = [[seconds(one, sample) for one in (local, *far)] for _ in range(self.options.rounds)]
        first, *others = np.min(rounds, axis=0)
        return [f"{first / other:.2f}" for other in others]


def context(text: str) -> int | Literal["exact"]:
    """Read the option."""
    return "exact" if text == "exact" else int(text)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("addresses", nargs="+", metavar="URL/NAME")
    parser.add_argument("--count", type=int, default=5, help="photographs that are compared")
    parser.add_argument("--tile", type=int, default=704, help="of models with free shapes, pixels")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8], help="windows in flight")
    parser.add_argument("--context", type=context, default="exact", help="pixels; fewer are faster")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts; 0 compares alphas only")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FrozenShapeWarning)  # the same on both sides
    head = ["model", "equal alphas", "windows", *(f"{n} in flight" for n in options.clients)]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    measurement = Measurement(options)
    for address in options.addresses:
        print("| " + " | ".join(measurement.row(address)) + " |", flush=True)


if __name__ == "__main__":
    main()
