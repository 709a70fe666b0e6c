"""How much memory OpenVINO takes: bytes per pixel fitted to measurements at widths 0.25 and 1.

Measured with release 2026.4 on x86 with AVX-512, one window in a fresh process, peak against what was held.
"""

from __future__ import annotations

from typing import NamedTuple

from dim.contract import ArtefactMetadata, Precision

COMPILED_BYTES = 18 * 10**6
"""A compiled graph without weights: its nodes, its kernels, what OpenVINO keeps of the compilation."""
WEIGHT_SIZE: dict[Precision, int] = {"fp32": 4, "fp16": 4, "bf16": 2, "int8": 1}
"""Bytes of a weight in the engine; fp16 is computed in float32."""
SWITCHES = 1.42
"""Bytes for each channel and pixel of the first level that say where each maximum was: three bytes for four
values, and as many as that for the deeper levels together."""
SMALL_TENSORS = 16
"""Bytes per pixel of image, trimap, alpha and what is made of them."""
QUANTISED_EXTRA = 24
"""Bytes per pixel that int8 graphs take beyond their quantised map."""
REFINER_VALUES = 16
"""Values per pixel that wait for the refiner: normalised colours, logits, alpha, and all of them joined."""
FREE_VALUES = 8.1
"""Values for each of 64 × width channels and pixel in the graph with free shapes: nothing is fused there."""
FREE_FLOAT, FREE_BF16, FREE_QUANTISED = 8, 40, 110
"""Bytes per pixel there that do not grow with the width, in float32, bf16 and int8."""
FREE_QUANTISED_CHANNEL = 1.2
"""Bytes more for each channel and pixel there where an int8 graph's other maps are bf16."""
KERNEL_CACHE = 40 * 10**6
"""What a graph with free shapes keeps of the shapes that it has met, beyond their tensors."""
MARGIN = 1.05


class Arithmetic(NamedTuple):
    """What is computed.

    Attributes:
        precision: of the convolutions.
        lowered: whether what is float32 in the artefact is computed in bf16.
    """

    precision: Precision
    lowered: bool

    @property
    def value_size(self) -> int:
        """Bytes of a value of a feature map."""
        return 2 if self.lowered or self.precision == "bf16" else 4


def compiled_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic) -> int:
    """A compiled graph without its tensors: weights in the engine's layout, and code; bytes."""
    return COMPILED_BYTES + metadata.parameters * WEIGHT_SIZE[arithmetic.precision]


def fixed_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic, pixels: int) -> int:
    """The tensors of a window that are alive together, in a graph compiled for its shape; bytes.

    Two maps of 64 × width channels at full resolution, and where each maximum was; in int8 one quantised map
    more.
    """
    channels = metadata.network.channels(64)
    per_pixel = channels * (2 * arithmetic.value_size + SWITCHES) + SMALL_TENSORS
    if arithmetic.precision == "int8":
        per_pixel += channels + QUANTISED_EXTRA
    if metadata.network.has_refiner:
        per_pixel += REFINER_VALUES * arithmetic.value_size
    return round(MARGIN * per_pixel * pixels)


def free_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic, pixels: int) -> int:
    """The same in the graph with free shapes, and what it keeps of the shapes before; bytes."""
    return KERNEL_CACHE + round(_free_bytes_per_pixel(metadata, arithmetic) * pixels)


def free_pixels(metadata: ArtefactMetadata, arithmetic: Arithmetic, limit: int) -> int:
    """The largest window whose tensors stay below a limit in the graph with free shapes; pixels."""
    return int(max(limit - KERNEL_CACHE, 0) / _free_bytes_per_pixel(metadata, arithmetic))


def _free_bytes_per_pixel(metadata: ArtefactMetadata, arithmetic: Arithmetic) -> float:
    channels, size = metadata.network.channels(64), arithmetic.value_size
    narrow: float = FREE_BF16 if size == 2 else FREE_FLOAT
    small = narrow
    if arithmetic.precision == "int8":
        small = FREE_QUANTISED + (FREE_QUANTISED_CHANNEL * channels if size == 2 else 0)
    return MARGIN * (channels * FREE_VALUES * size + small)
