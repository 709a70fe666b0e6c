"""Time whole-image DIM in eager PyTorch, the baseline of artefacts and tiling.

Float32 without TF32, NCHW, max-pooling with indices and max-unpooling, inference mode, all threads, one
warm-up: as the reference implementation runs. Weights are random, which changes neither time nor memory. It
runs as a separate program, so that its memory can be measured and the runtime never imports torch::

    python -m dim_export.bench.eager_baseline 1024 1536 --stage 3 --width 1.0 --runs 3

It prints one JSON document: ``seconds`` of each run, copies included, ``peak_bytes`` of the process (of the
GPU's memory with ``--device cuda``), ``threads``, ``torch``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from torch import nn

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
    parser.add_argument(
        "--cue-radii", type=int, nargs="*", default=[], help="radii of the refiner's colour cues, pixels"
    )
    parser.add_argument(
        "--propagation-steps",
        type=int,
        nargs="*",
        default=[],
        help="steps of the propagation for each size of cells",
    )
    parser.add_argument("--propagates-light", action="store_true", help="propagate along lines of light")
    parser.add_argument("--hardens-ends", action="store_true", help="move alpha close to 0 and 1 closer")
    parser.add_argument("--lifts-shadows", action="store_true", help="read colours with lifted shadows")
    parser.add_argument("--sharpens", action="store_true", help="read sharpened colours")
    parser.add_argument("--runs", type=int, default=1, help="timed runs, after one warm-up")
    parser.add_argument("--threads", type=int, default=None, help="default: torch's choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="the network through torch.compile")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    config = NetworkConfig(
        stage=given.stage,
        width=given.width,
        batch_norm=given.batch_norm,
        cue_radii=given.cue_radii,
        propagation_steps=given.propagation_steps,
        propagates_light=given.propagates_light,
        hardens_ends=given.hardens_ends,
        lifts_shadows=given.lifts_shadows,
        sharpens=given.sharpens,
    )
    options = {"runs": given.runs, "device": given.device, "compiled": given.compile}
    print(json.dumps(measure(config, given.rows, given.columns, **options)))


@torch.inference_mode()
def measure(
    config: NetworkConfig,
    height: int,
    width: int,
    *,
    runs: int,
    device: str = "cpu",
    compiled: bool = False,
) -> dict[str, Any]:
    """Return the seconds of each timed run on a random image of this size, and the peak memory.

    Raises:
        RuntimeError: PyTorch does not find the device, or its memory does not hold the whole image's maps.
    """
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    model: nn.Module = DIM(config).eval().to(device)
    if compiled:
        model.compile()
    rows, columns = map(round_up, (height, width))
    image = torch.randint(0, 256, (1, 3, rows, columns), dtype=torch.uint8)
    trimap = torch.full((1, 1, rows, columns), 128, dtype=torch.uint8)
    seconds = [_timed(model, image, trimap, device) for _ in range(runs + 1)][1:]
    on_gpu = device.startswith("cuda")
    return {
        "seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident_bytes(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _timed(model: nn.Module, image: torch.Tensor, trimap: torch.Tensor, device: str) -> float:
    started = time.perf_counter()
    # The copy back waits for the GPU.
    model(normalise(image.to(device), trimap.to(device))).cpu()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
