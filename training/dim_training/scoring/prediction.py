"""A network's alpha of a whole photograph, as the published test computes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.contract import STRIDE
from dim.errors import InputError
from dim.network import DIM, normalise
from dim.trimap import apply_known


@torch.inference_mode()
def predict(model: DIM, image: UInt8, trimap: UInt8) -> UInt8:
    """Whole-image alpha as the published test has it.

    Reflected to multiples of 32 at the bottom and the right, cropped back, rounded half to even, known pixels
    forced.

    Args:
        model: in eval mode, on any device.
        image: uint8 H, W, 3, RGB.
        trimap: canonical, uint8 H, W.

    Returns:
        uint8 H, W.

    Raises:
        InputError: the photograph does not fit into the device's memory.
    """
    height, width = trimap.shape
    device = next(model.parameters()).device
    try:
        alpha = model(_network_input(image, trimap, device))[0, 0, :height, :width].float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"cannot predict a photograph of {width}×{height} px as a whole",
            got=f"out of memory on {device}",
            fix="--device cpu, or an artefact, which is cut into windows: dim-export onnx CHECKPOINT -o "
            "MODEL.onnx",
        ) from error
    return apply_known(quantise8(alpha), trimap)


def _network_input(image: UInt8, trimap: UInt8, device: torch.device) -> torch.Tensor:
    """float32 1, 4, H, W, channels last; H and W reflected to multiples of 32."""
    pad = ((0, -trimap.shape[0] % STRIDE), (0, -trimap.shape[1] % STRIDE))
    colours = torch.from_numpy(np.pad(image, (*pad, (0, 0)), mode="reflect")).to(device).permute(2, 0, 1)
    hints = torch.from_numpy(np.pad(trimap, pad, mode="reflect")).to(device)
    return normalise(colours[None], hints[None, None]).contiguous(memory_format=torch.channels_last)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in cuDNN's convolutions, which PyTorch allows by default: it keeps 10 bits of the mantissa."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
