"""PyTorch as a back end of the runtime: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata
from dim.network import DIM, normalise
from dim.network.pooling import IndexPooling, PoolState
from dim.trimap import apply_known
from dim_export.graph.onnx_file import describe
from dim_runtime.backends.base import Backend


class Watched(NamedTuple):
    """The result of a forward pass, with its pooling choices.

    Attributes:
        alpha: floating N, H, W in [0, 1].
        choices: uint8 N, C, H/2, W/2 of each of the five pools, shallowest first: the position of the maximum
            in the 2×2 window; 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """

    alpha: Floating
    choices: tuple[UInt8, ...]


class TorchBackend(Backend):
    """Runs windows with PyTorch on the CPU in the arithmetic of ``dtype``; batch norm and pooling as trained.

    Args:
        model: moved to ``dtype`` in place and put into eval mode.
        dtype: float64 gives the exact result, float32 the result that PyTorch users get.
        channels_last: use the memory layout in which PyTorch's CPU convolutions are fastest.
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
        """The document that an fp32 artefact of this network would have."""
        return self._metadata

    @torch.inference_mode()
    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Compute the alpha of a batch: uint8 N, H, W, 3 RGB and uint8 N, H, W -> N, H, W in [0, 1].

        The result has ``dtype``, and is exactly 0 and 1 where the trimap is 0 and 255. H and W are multiples
        of 32.
        """
        colours = torch.from_numpy(image).to(self._dtype).permute(0, 3, 1, 2)
        x = normalise(colours, torch.from_numpy(trimap).unsqueeze(1)).contiguous(memory_format=self._layout)
        alpha: Floating = self._model(x)[:, 0].numpy()
        return apply_known(alpha, trimap)

    def watch(self, image: UInt8, trimap: UInt8) -> Watched:
        """Compute as :meth:`run` does, and return the choice of every pooling window, too."""
        with _recording(self._model) as pooling:
            alpha = self.run(image, trimap)
        return Watched(alpha, tuple(pooling.choices))

    def window_bytes(self, height: int, width: int) -> int:
        """Return four times an engine's bytes: PyTorch keeps more maps, and those in float64 are larger."""
        return 4 * super().window_bytes(height, width)

    def close(self) -> None:
        """Do nothing: the caller owns the model."""


class _RecordingPooling(IndexPooling):
    """PyTorch's pooling, which also records the choice of each window."""

    def __init__(self) -> None:
        self.choices: list[UInt8] = []

    def pool(self, x: Tensor) -> tuple[Tensor, PoolState]:
        pooled, indices = super().pool(x)
        assert isinstance(indices, Tensor)
        width = x.shape[-1]
        # An index counts the values of one plane, row by row.
        place = (indices // width % 2) * 2 + indices % width % 2
        self.choices.append(place.to(torch.uint8).numpy())
        return pooled, indices


@contextmanager
def _recording(model: DIM) -> Iterator[_RecordingPooling]:
    before, recorder = model.backbone.pooling, _RecordingPooling()
    model.backbone.pooling = recorder
    try:
        yield recorder
    finally:
        model.backbone.pooling = before
