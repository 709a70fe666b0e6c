"""Memory that OpenVINO takes: bytes per pixel fitted to measurements at widths 0.25 and 1.

Measured with release 2026.4 on x86 with AVX-512, one window in a fresh process, peak against what was held.
"""

from __future__ import annotations

from dim.contract import ArtefactMetadata, Precision
from dim_runtime.backends.openvino_precision import Arithmetic

COMPILED_BYTES = 18 * 10**6
"""Bytes of a compiled graph without weights: its nodes, its kernels, remains of the compilation."""
WEIGHT_SIZE: dict[Precision, int] = {"fp32": 4, "fp16": 4, "bf16": 2, "int8": 1}
"""Bytes of a weight in the engine; fp16 is computed in float32."""
SWITCHES = 0.6
"""Bytes, for each channel and pixel of the first level, of the places of the maxima: their share of the
peak."""
SMALL_TENSORS = 16
"""Bytes per pixel of image, trimap, alpha and their intermediate forms."""
REFINER_VALUES = 16
"""Values per pixel that are kept for the refiner: normalised colours, logits, alpha, and their join."""
CUE_BYTES = 230
"""Bytes per pixel alive while the refiner's cues are computed; 200 to 207 measured at width 0.25
in every precision."""
PROPAGATION_BYTES, LOWERED_PROPAGATION_BYTES = 250, 410
"""Bytes per pixel alive while alpha is propagated: 231 to 254 measured, but 403 to 426 where float32 is
lowered to bf16, because propagation stays in float32."""
FREE_CUES = 72
"""Bytes per pixel that the cues, and the crop behind them, add in graphs with free shapes."""
FREE_PROPAGATION = 450
"""Bytes per pixel alive while alpha is propagated there; 398 to 443 measured."""
SEPARATE_PROPAGATION = 434
"""Bytes per pixel of propagation in a separate graph with free shapes: 278 to 303 measured on an AMD CPU, 421
to 434 on an Intel CPU with AMX."""
RELEASED = 86
"""Bytes per pixel that a graph keeps after its memory was released: 14 to 80 measured, the most in bf16."""
FREE_VALUES = 6.7
"""Values for each of 64 × width channels and pixel in the graph with free shapes, where less is fused."""
FREE_QUANTISED_BYTES = {4: 19.5, 2: 13.5}
"""Bytes for each channel and pixel in int8 graphs with free shapes, by the size of a value of other maps."""
FREE_PIXEL = 32
"""Bytes per pixel in the graph with free shapes that do not grow with the width."""
KERNEL_CACHE = 110 * 10**6
"""Bytes that a graph with free shapes keeps for earlier shapes, beyond their tensors: 75 to 105 MB measured
after 49 windows of as many kinds."""
MARGIN = 1.05


def compiled_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic) -> int:
    """Return the bytes of a compiled graph without its tensors: weights in the engine's layout, and code."""
    return COMPILED_BYTES + metadata.parameters * WEIGHT_SIZE[arithmetic.precision]


def fixed_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic, pixels: int) -> int:
    """Return the bytes of a window's tensors that are alive together, in a graph compiled for its shape.

    Two maps of 64 × width channels at full resolution and the places of the maxima, or the tensors of cues
    or of propagation if these take more.
    """
    channels = metadata.network.channels(64)
    per_pixel = channels * (2 * arithmetic.value_size + SWITCHES) + SMALL_TENSORS
    if metadata.network.has_refiner:
        per_pixel += REFINER_VALUES * arithmetic.value_size
    if metadata.network.cue_radii:
        per_pixel = max(per_pixel, CUE_BYTES)
    if metadata.network.propagation_steps and not metadata.phases:
        per_pixel = max(per_pixel, LOWERED_PROPAGATION_BYTES if arithmetic.lowered else PROPAGATION_BYTES)
    return round(MARGIN * per_pixel * pixels)


def free_bytes(metadata: ArtefactMetadata, arithmetic: Arithmetic, pixels: int) -> int:
    """Return the bytes of a window in the graph with free shapes, and those kept for earlier shapes."""
    per_pixel = _free_bytes_per_pixel(metadata, arithmetic, propagates=not metadata.phases)
    return KERNEL_CACHE + round(per_pixel * pixels)


def propagation_bytes(pixels: int) -> int:
    """Return the bytes of a window of propagation in a separate graph."""
    return round(MARGIN * SEPARATE_PROPAGATION * pixels)


def released_bytes(pixels: int) -> int:
    """Return what a graph keeps of a window's bytes after its memory was released."""
    return round(MARGIN * RELEASED * pixels)


def free_pixels(metadata: ArtefactMetadata, arithmetic: Arithmetic, limit: int) -> int:
    """Return the pixels of the largest window whose tensors fit a limit in the graph with free shapes."""
    return int(max(limit - KERNEL_CACHE, 0) / _free_bytes_per_pixel(metadata, arithmetic, propagates=True))


def _free_bytes_per_pixel(metadata: ArtefactMetadata, arithmetic: Arithmetic, *, propagates: bool) -> float:
    size = arithmetic.value_size
    per_channel = FREE_QUANTISED_BYTES[size] if arithmetic.precision == "int8" else FREE_VALUES * size
    per_pixel = metadata.network.channels(64) * per_channel + FREE_PIXEL
    per_pixel += FREE_CUES * bool(metadata.network.cue_radii)
    propagation = FREE_PROPAGATION if propagates and metadata.network.propagation_steps else 0
    return MARGIN * max(per_pixel, propagation)
