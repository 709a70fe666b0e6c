"""Measure what docs/performance.md states about windows: their speed, and the time outside of the network.

    python examples/measure_overhead.py MODEL.onnx IMAGE TRIMAP --backend openvino

The pair is enlarged to 12 megapixels, matted from file to file, and the time inside the engine is subtracted.
Beside it the engine runs single windows of 1536 × 1536 pixels. Let nothing else run meanwhile.
"""

import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import cv2
import numpy as np

from dim.contract.cropping import NO_MARGINS
from dim.images.files import read_image, read_trimap, write_image
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import open_backend
from dim_runtime.matting import Matting
from dim_runtime.outputs.pair import run_pair
from dim_runtime.outputs.spec import OutputSpec

MEGAPIXELS = 12
SIDE = 1536


class Timed(Backend):
    """Adds up the seconds and the pixels of an engine."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.seconds, self.pixels = backend, 0.0, 0

    @property
    def metadata(self):
        return self.backend.metadata

    def window_bytes(self, height, width):
        return self.backend.window_bytes(height, width)

    def peak_bytes(self, shapes):
        return self.backend.peak_bytes(shapes)

    def expect(self, calls, at_once=1):
        self.backend.expect(calls)

    @property
    def crops(self):
        return self.backend.crops

    @property
    def phases(self):
        return self.backend.phases

    def run(self, image, trimap):
        self.pixels += trimap.size
        return self._timed(self.backend.run, image, trimap)

    def run_core(self, image, trimap, margins, beyond=NO_MARGINS):
        self.pixels += trimap.size
        return self._timed(self.backend.run_core, image, trimap, margins, beyond)

    def propagate(self, image, trimap, estimate):
        return self._timed(self.backend.propagate, image, trimap, estimate)

    def _timed(self, call, *inputs):
        started = time.perf_counter()
        result = call(*inputs)
        self.seconds += time.perf_counter() - started
        return result

    def rate(self) -> float:
        """Return megapixels of windows a second."""
        return self.pixels / 1e6 / self.seconds


def main() -> None:
    """Read the command line, measure, and print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("trimap", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default=None)
    given = parser.parse_args()
    engine = open_backend(given.model, backend=given.backend, precision=given.precision)
    single = large_windows(engine)
    with tempfile.TemporaryDirectory() as folder:
        image, trimap = enlarged(given.image, given.trimap, Path(folder))
        for name in ("first", "second"):  # an engine prepares itself for a shape when it sees it first
            timed = Timed(engine)
            with_files = time.perf_counter()
            matting = Matting.from_backend(timed)
            outcome = run_pair(matting, image, trimap, Path(folder) / "alpha.png", OutputSpec())
            total = time.perf_counter() - with_files
            print(f"{name} call: {outcome.summary()}")
            print(f"  {total:.2f} s from file to file, {timed.seconds:.2f} s of it in the engine")
            print(f"  outside of the engine: {1 - timed.seconds / total:.1%}")
            rate = timed.rate()
            print(f"  windows: {rate:.3f} MP/s, single large ones {single:.3f}: {rate / single:.1%}")


def large_windows(engine: Backend, runs: int = 2) -> float:
    """Measure megapixels a second of single large windows, after one that is not timed."""
    image, trimap = np.full((1, SIDE, SIDE, 3), 128, np.uint8), np.full((1, SIDE, SIDE), 128, np.uint8)
    engine.run(image, trimap)
    timed = Timed(engine)
    for _ in range(runs):
        timed.run(image, trimap)
    return timed.rate()


def enlarged(image: Path, trimap: Path, folder: Path) -> tuple[Path, Path]:
    colours, levels = read_image(image), read_trimap(trimap)
    scale = (MEGAPIXELS * 1e6 / levels.size) ** 0.5
    size = (round(levels.shape[1] * scale), round(levels.shape[0] * scale))
    write_image(folder / "image.png", cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC))
    write_image(folder / "trimap.png", cv2.resize(levels, size, interpolation=cv2.INTER_NEAREST))
    return folder / "image.png", folder / "trimap.png"


if __name__ == "__main__":
    main()
