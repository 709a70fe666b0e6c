"""Whole-image DIM in eager PyTorch: what artefacts and tiling are measured against.

Float32, NCHW, max-pooling with indices and max-unpooling, inference mode, all threads, one warm-up: as the
reference implementation runs. Weights are random, which changes neither time nor memory. Run as a program
of its own, so that its memory is its own and the runtime never imports torch::

    python -m dim_export.bench.eager_baseline 1024 1536 --stage 3 --width 1.0 --runs 3

It prints one JSON document: ``seconds`` of each run, ``peak_bytes`` of the process, ``threads``, ``torch``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from dim.contract import STRIDE, NetworkConfig
from dim.network import DIM, normalise
from dim_runtime.memory import peak_resident_bytes
from dim_runtime.planning.geometry import round_up


def main() -> None:
    """Time the runs that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m dim_export.bench.eager_baseline", description=__doc__)
    parser.add_argument("rows", type=int, help=f"image height, pixels; padded to a multiple of {STRIDE}")
    parser.add_argument("columns", type=int, help="image width, pixels")
    parser.add_argument("--stage", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channel counts")
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--cue-radii", type=int, nargs="*", default=[], help="of the refiner's colour cues")
    parser.add_argument("--propagation-steps", type=int, nargs="*", default=[], help="for each size of cells")
    parser.add_argument("--runs", type=int, default=1, help="timed runs, after one warm-up")
    parser.add_argument("--threads", type=int, default=None, help="torch's own choice by default")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    config = NetworkConfig(
        stage=given.stage,
        width=given.width,
        batch_norm=given.batch_norm,
        cue_radii=given.cue_radii,
        propagation_steps=given.propagation_steps,
    )
    print(json.dumps(measure(config, given.rows, given.columns, runs=given.runs)))


@torch.inference_mode()
def measure(config: NetworkConfig, height: int, width: int, *, runs: int) -> dict[str, Any]:
    """Seconds of each timed run on a random image of this size, and the peak memory of the process."""
    torch.manual_seed(0)
    model = DIM(config).eval()
    rows, columns = map(round_up, (height, width))
    image = torch.randint(0, 256, (1, 3, rows, columns), dtype=torch.uint8)
    trimap = torch.full((1, 1, rows, columns), 128, dtype=torch.uint8)
    seconds = [_timed(model, image, trimap) for _ in range(runs + 1)][1:]
    return {
        "seconds": seconds,
        "peak_bytes": peak_resident_bytes(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _timed(model: DIM, image: torch.Tensor, trimap: torch.Tensor) -> float:
    started = time.perf_counter()
    model(normalise(image, trimap))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
