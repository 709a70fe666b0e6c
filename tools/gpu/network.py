"""The network in PyTorch on a GPU: ties of pooling, parity with float64 on the CPU, and the speed of eager
and compiled inference."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks import random_network
from timing import milliseconds, options, peak_mib, reset_peak
from torch import Tensor

from dim.files import write_text
from dim.network import DIM, normalise
from dim_runtime.selftest.references import VISIBLE, read_reference

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    """Write the JSON of this step."""
    given = options("The network in PyTorch on a GPU.")
    # TF32 keeps 10 bits of the mantissa; rows that are called fp32 are computed in fp32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network = random_network(width=1 / 16 if given.dry else 1)
    side = 64 if given.dry else 1024
    report = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else None,
        "ties": ties(given.device),
        "parity": parity(network, given.device),
        "speed": speed(network, given.device, side, given.dry),
    }
    write_text(given.output, json.dumps(report, indent=2) + "\n")


def ties(device: str) -> dict[str, int]:
    """Count pooling windows whose index is not that of the first maximum, which the exported graph takes."""
    values = torch.randint(0, 3, (2, 16, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    expected = F.max_pool2d(values, 2, return_indices=True)[1]
    found = {}
    for name, dtype in DTYPES.items():
        for layout in (torch.contiguous_format, torch.channels_last):
            moved = values.to(device, dtype).contiguous(memory_format=layout)
            indices = F.max_pool2d(moved, 2, return_indices=True)[1].cpu()
            found[f"{name}, {str(layout).removeprefix('torch.')}"] = int((indices != expected).sum())
    return found


@torch.inference_mode()
def parity(network: DIM, device: str) -> dict[str, float]:
    """Return the share of unknown pixels that differ from float64 on the CPU by more than one gray level."""
    reference = read_reference("plain")
    window = network_input(reference.image, reference.trimap)
    unknown = reference.trimap[:, None] == 128
    truth = copy.deepcopy(network).double()(window.double()).numpy()
    found = {"cpu fp32": beyond(network(window), truth, unknown)}
    for name, dtype in DTYPES.items():
        moved = copy.deepcopy(network).to(device, dtype, memory_format=torch.channels_last)
        found[f"{device} {name}"] = beyond(moved(window.to(device, dtype)), truth, unknown)
    return found


def beyond(alpha: Tensor, truth: Any, unknown: Any) -> float:
    """Return the share of unknown pixels that differ by more than one gray level."""
    return float((np.abs(alpha.double().cpu().numpy() - truth)[unknown] > VISIBLE).mean())


@torch.inference_mode()
def speed(network: DIM, device: str, side: int, dry: bool) -> dict[str, dict[str, Any]]:
    """Time one window in each precision, eager and compiled; an error is written in place of a time."""
    found: dict[str, dict[str, Any]] = {}
    runs = 2 if dry else 15
    for name, dtype in DTYPES.items():
        moved = copy.deepcopy(network).to(device, dtype, memory_format=torch.channels_last)
        window = torch.randn(1, 4, side, side, device=device, dtype=dtype)
        window = window.contiguous(memory_format=torch.channels_last)
        compiled = None if dry else torch.compile(moved)
        for form, model in {"eager": moved, "compiled": compiled}.items():
            if model is None:
                continue
            reset_peak(device)
            try:
                time = milliseconds(lambda model=model, window=window: model(window), device, runs=runs)
                found[f"{form} {name}"] = {
                    "milliseconds": time, "windows_per_s": 1e3 / time, "side": side,
                    "peak_mib": peak_mib(device),
                }  # fmt: skip
            except RuntimeError as error:
                found[f"{form} {name}"] = {"error": str(error)[:300]}
    return found


def network_input(image: Any, trimap: Any) -> Tensor:
    """Return the network's input, float32 N, 4, H, W, of a window uint8 N, H, W, 3 and its trimap."""
    colours = torch.from_numpy(image).permute(0, 3, 1, 2)
    return normalise(colours, torch.from_numpy(trimap)[:, None])


if __name__ == "__main__":
    main()
