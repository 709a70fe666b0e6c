"""What every back end offers to the tiler, and how much memory the network takes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dim.contract import ArtefactMetadata

UInt8 = npt.NDArray[np.uint8]
Floating = npt.NDArray[np.floating[Any]]


class Backend(Protocol):
    """A loaded artefact. Classes that inherit from this one get :meth:`window_bytes` and :meth:`close`."""

    @property
    def metadata(self) -> ArtefactMetadata:
        """The artefact's document: context, stride, precision, frozen shape."""
        ...

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Alpha of a batch of windows.

        Args:
            image: uint8 N, H, W, 3, RGB 0-255; H and W multiples of 32.
            trimap: uint8 N, H, W: 0 background, 128 unknown, 255 foreground.

        Returns:
            Floating point N, H, W in [0, 1]; the tiler sets known pixels to 0 and 1 itself.
        """
        ...

    def window_bytes(self, height: int, width: int) -> int:
        """Upper bound of the memory that :meth:`run` takes, and gives back, for one window; bytes."""
        return network_bytes(self.metadata, height * width)

    def close(self) -> None:
        """Free the engine; the back end is not used afterwards."""


FULL_RESOLUTION_MAPS = 4
"""Float32 feature maps of 64 × width channels alive at once, at the last unpooling: the routed values, their
concatenation, the interleaved map and the convolution's output in the engine's own layout."""
SMALL_TENSORS = 80
"""Bytes per pixel of everything that does not grow with the width: image, input, alpha, pooling masks."""
REFINER_TENSORS = 48
"""Bytes per pixel that wait for the refiner: normalised colours, logits, alpha, and all of them joined."""
ENGINE_BYTES = 40 * 10**6
"""Threads, kernels' scratch memory and what an engine allocates on its first run."""
MARGIN = 1.1
OTHER_PRECISIONS = 1.5
"""On a CPU fp16 and int8 graphs hold float32 copies beside their own tensors; not measured yet."""


def network_bytes(metadata: ArtefactMetadata, pixels: int) -> int:
    """Memory of one forward pass, weights excluded, from the maps that are alive together; bytes."""
    network = metadata.network
    per_pixel = FULL_RESOLUTION_MAPS * network.channels(64) * 4 + SMALL_TENSORS
    if network.has_refiner:
        per_pixel += REFINER_TENSORS
    factor = MARGIN if metadata.precision == "fp32" else MARGIN * OTHER_PRECISIONS
    return ENGINE_BYTES + round(per_pixel * pixels * factor)
