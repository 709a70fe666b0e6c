"""The un-exported network as a back end of the runtime: the reference in every measurement of parity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dim.contract import ArtefactMetadata
from dim.network import DIM, normalise
from dim_export.to_onnx import describe
from dim_runtime.backends.base import Backend

UInt8 = npt.NDArray[np.uint8]
Floating = npt.NDArray[np.floating[Any]]


class TorchBackend(Backend):
    """Runs windows with PyTorch on the CPU in the arithmetic of ``dtype``; batch norm and pooling as trained.

    Args:
        model: moved to ``dtype`` in place and put into eval mode.
        dtype: float64 shows what is true, float32 what PyTorch users get.
        channels_last: the memory layout in which PyTorch's CPU convolutions are fastest.
    """

    def __init__(
        self, model: DIM, *, dtype: torch.dtype = torch.float32, channels_last: bool = False
    ) -> None:
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._model = model.to(dtype=dtype).to(memory_format=self._layout).eval()
        self._dtype = dtype
        self._metadata = describe(model, checkpoint_sha256="")

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @torch.inference_mode()
    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Alpha of a batch: uint8 N, H, W, 3 RGB and uint8 N, H, W -> N, H, W in [0, 1], in ``dtype``.

        H and W are multiples of 32. Exactly 0 and 1 where the trimap is 0 and 255.
        """
        colours = torch.from_numpy(image).to(self._dtype).permute(0, 3, 1, 2)
        hints = torch.from_numpy(trimap)
        x = normalise(colours, hints.unsqueeze(1)).contiguous(memory_format=self._layout)
        alpha = self._model(x)[:, 0].masked_fill(hints == 0, 0).masked_fill(hints == 255, 1)
        result: Floating = alpha.numpy()
        return result

    def window_bytes(self, height: int, width: int) -> int:
        """PyTorch keeps more maps alive than an engine, and in float64 they are twice as large; bytes."""
        return 4 * super().window_bytes(height, width)

    def close(self) -> None:
        """Nothing to free: the model belongs to whoever gave it."""
