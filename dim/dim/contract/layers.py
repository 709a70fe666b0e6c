"""The layers of a network: what each reads around the pixels that it computes, and its multiply-adds.

The computation follows a block of the output back to the input. A block's border is a multiple of STRIDE,
where the grids of all levels have a border too, so that each level only adds the radii of its convolutions.
The encoder needs all of a window's context. The decoder's layers need less with each level, and the refiner's
convolutions a few pixels: what lies further out is dropped on the way (:mod:`dim.contract.cropping`).
"""

from __future__ import annotations

from typing import NamedTuple

from dim.contract.config import STRIDE, NetworkConfig, cue_cell, propagation_cells

ENCODER_DEPTHS = (2, 2, 3, 3, 3)
"""Number of 3×3 convolutions before each pool."""
ENCODER_STAGES = tuple(zip((64, 128, 256, 512, 512), ENCODER_DEPTHS, strict=True))
"""Published channels and number of 3×3 convolutions before each pool."""
LEVELS = len(ENCODER_DEPTHS)
"""Number of pools, and of unpoolings."""

DECODER_STEPS = (
    ("deconv6_1", 512, 1),
    ("deconv5_1", 512, 5),
    ("deconv4_1", 256, 5),
    ("deconv3_1", 128, 5),
    ("deconv2_1", 64, 5),
    ("deconv1_1", 64, 5),
)
"""Name, published output channels and kernel side; an unpooling follows each but the last."""

DECODER_RADIUS = 2
"""Radius, in pixels, of the decoder's 5×5 convolutions: one after each unpooling, and one at the end."""
REFINER_RADIUS = 4
"""Radius, in pixels, of the refiner's four 3×3 convolutions together."""

SHARPENING_RADIUS = 4
"""Radius, in pixels, of the square whose mean sharpening subtracts."""

BLEND = 4
"""Pixels around the core that the refiner computes beyond its radius, so that windows can be blended."""
PIXEL_BLOCK = 4
"""Pixels: convolutions at the image's size may compute blocks of this side, so crops keep whole blocks."""
PROPAGATION_SHARE = 0.07
"""Time of propagation over the time of all other layers. Its multiply-adds are fewer, but it is limited by
memory: measured in ONNX Runtime on the embedded network."""


def exact_context(config: NetworkConfig) -> int:
    """Return the context with which a tile equals the same part of the whole image, up to rounding.

    Returns:
        Pixels on each side, a multiple of STRIDE: 160 without refiner, 192 with one, also with cues of radius
        16; 256 with cues of radius 64; 320 with cues of radius 16 and propagation in 4, 3 and 2 steps.
    """
    return _context(config, refiner_reach(config, propagation_reach(config)))


def network_context(config: NetworkConfig) -> int:
    """Return the context for everything up to the refiner's alpha and trust, without their propagation.

    Returns:
        Pixels on each side, a multiple of STRIDE; the same as :func:`exact_context` without propagation.
    """
    return _context(config, refiner_reach(config))


def propagation_context(config: NetworkConfig) -> int:
    """Return the context for the propagation of alpha alone; pixels, a multiple of STRIDE, 0 without it."""
    return -(-propagation_reach(config) // STRIDE) * STRIDE


def _context(config: NetworkConfig, logits_reach: int) -> int:
    # Down the decoder: the last level has two convolutions, and each level has half the side.
    reach = logits_reach + 2 * DECODER_RADIUS
    for _ in ENCODER_DEPTHS[1:]:
        reach = _half(reach) + DECODER_RADIUS
    reach = _half(reach)
    # Up the encoder, from the deepest level to the image.
    for depth in reversed(ENCODER_DEPTHS):
        reach = 2 * reach + depth
    reach += SHARPENING_RADIUS if config.sharpens else 0
    return -(-reach // STRIDE) * STRIDE


def _half(reach: int) -> int:
    return -(-reach // 2)


def refiner_reach(config: NetworkConfig, beyond: int = 0) -> int:
    """Return how far beyond a block's border the refiner reads the decoder's alpha, pixels.

    Args:
        config: which network.
        beyond: pixels beyond the border that the refiner computes, too.
    """
    if not config.has_refiner:
        return beyond
    border = beyond + REFINER_RADIUS
    # The last pixel of the convolutions' margin lies in a cell and is interpolated from the next one, too.
    squares = (
        radius + cue_cell(radius) * (-(-border // cue_cell(radius)) + 1) for radius in config.cue_radii
    )
    return max([border, *squares])


def propagation_reach(config: NetworkConfig) -> int:
    """Return how far beyond a block's border propagation reads the refiner's alpha: whole cells, pixels."""
    reach = 0
    steps = config.propagation_steps
    for place, (cell, count) in reversed(list(enumerate(zip(propagation_cells(steps), steps, strict=True)))):
        # Interpolation reads one cell more, a step two: windows around a cell, and cells around a window.
        # The coarsest level computes its first lines by one more step.
        reach = cell * (-(-reach // cell) + 1 + 2 * (count + (place == 0)))
    return reach


def kept_margins(config: NetworkConfig) -> tuple[int, ...]:
    """Return the margins that are kept around the core before each unpooling, in values of its level.

    Returns:
        For level 1 to 5. Twice the first are the pixels around the core whose logits are computed.
    """
    cells = [cue_cell(radius) for radius in config.cue_radii]
    # Logits are read by the refiner, and computed by two convolutions: the decoder's last level has two.
    needed = _half(refiner_reach(config) + 2 * DECODER_RADIUS)
    # What the refiner sees begins and ends at a border of its cells and of blocks of pixels.
    kept = [_up(needed, max([PIXEL_BLOCK, *cells]) // 2)]
    for _ in ENCODER_DEPTHS[1:]:
        needed = _half(needed + DECODER_RADIUS)
        kept.append(max(needed, _half(kept[-1])))
    return tuple(kept)


def refined_margin(config: NetworkConfig) -> int:
    """Return the pixels around the core that the refiner's convolutions compute, and the graph's output has.

    Colour cues read more of the logits. Without a refiner it is what the decoder computes.
    """
    decoded = 2 * kept_margins(config)[0]
    return min(decoded, _up(REFINER_RADIUS + BLEND, PIXEL_BLOCK)) if config.has_refiner else decoded


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


class Work(NamedTuple):
    """Layers that compute the same part of a window.

    Attributes:
        margin: pixels that they compute around the core, at most; None for the whole window.
        multiply_adds: of their convolutions, for each pixel of the image.
    """

    margin: int | None
    multiply_adds: float


def layer_work(config: NetworkConfig) -> tuple[Work, ...]:
    """Return the work of the encoder, of each level of the decoder, deepest first, and of the refiner."""
    encoder, inputs = _encoder(config)
    found = [Work(None, encoder)]
    margins = kept_margins(config)
    for level, (_, published, side) in zip(reversed(range(LEVELS)), DECODER_STEPS[1:], strict=True):
        outputs = config.channels(published)
        multiply_adds = inputs * outputs * side * side / 4**level
        found.append(Work(margins[level] << (level + 1), multiply_adds))
        inputs = outputs
    # The last convolution computes the same part as the decoder's last level.
    last = found[-1]
    found[-1] = last._replace(multiply_adds=last.multiply_adds + inputs * 25)
    return (*found, Work(refined_margin(config), _refiner(config)))


def multiply_adds_per_pixel(config: NetworkConfig) -> int:
    """Count the convolutions' multiply-adds per pixel of a padded input; 666 752 for stage 3, width 1."""
    return round(sum(work.multiply_adds for work in layer_work(config)))


def _encoder(config: NetworkConfig) -> tuple[float, int]:
    """Return the multiply-adds per pixel up to the first unpooling, and the channels there."""
    total, scale, inputs = 0.0, 1.0, 4
    for published, depth in ENCODER_STAGES:
        outputs = config.channels(published)
        for _ in range(depth):
            total += inputs * outputs * 9 * scale
            inputs = outputs
        scale /= 4
    outputs = config.channels(DECODER_STEPS[0][1])
    return total + (inputs * inputs + inputs * outputs) * scale, outputs


def _refiner(config: NetworkConfig) -> int:
    if not config.has_refiner:
        return 0
    channels = config.channels(64)
    return 9 * channels * (config.refiner_inputs + 2 * channels + config.refiner_outputs)
