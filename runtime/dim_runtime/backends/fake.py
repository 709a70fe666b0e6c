"""A back end without a network, for the tests of programs that use :class:`~dim_runtime.matting.Matting`.

>>> from dim_runtime import Matting
>>> from dim_runtime.backends.fake import FakeBackend
>>> matting = Matting.from_backend(FakeBackend())  # alpha is the image's red channel
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata, NetworkConfig
from dim_runtime.backends.base import Backend, require_windows

Compute = Callable[[UInt8, UInt8], Floating]
"""Image uint8 N, H, W, 3 and trimap uint8 N, H, W to alpha, floating N, H, W in [0, 1]."""


def fake_metadata(
    *, context: int = 192, static_shape: tuple[int, int, int] | None = None, width: float = 0.25
) -> ArtefactMetadata:
    """Make the document of an artefact that does not exist.

    Args:
        context: pixels around each core, a multiple of 32.
        static_shape: N, H, W of a frozen graph; None for free shapes.
        width: multiplier of the channels, which decides the planned memory.
    """
    return ArtefactMetadata(
        network=NetworkConfig(stage=1, width=width),
        precision="fp32",
        context=context,
        static_shape=static_shape,
        multiply_adds_per_pixel=1,
        parameters=1,
        checkpoint_sha256="0",
        versions={},
        oldest_readers={},
        command="",
    )


def red_channel(image: UInt8, trimap: UInt8) -> Floating:
    """Return the red channel as alpha, float64 in [0, 1]."""
    return image[..., 0] / np.float64(255)


class FakeBackend(Backend):
    """Computes alpha by a function, validates its windows and records their shapes.

    Args:
        metadata: the artefact's document; None for :func:`fake_metadata`.
        alpha: computes the alpha of a batch of windows.

    Attributes:
        shapes: N, H, W of every batch, in order.
        closed: whether :meth:`close` was called.
    """

    def __init__(self, metadata: ArtefactMetadata | None = None, alpha: Compute = red_channel) -> None:
        self._metadata = metadata or fake_metadata()
        self.alpha = alpha
        self.shapes: list[tuple[int, ...]] = []
        self.closed = False

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        require_windows(image.shape, trimap.shape)
        self.shapes.append(trimap.shape)
        return self.alpha(image, trimap)

    def close(self) -> None:
        self.closed = True
