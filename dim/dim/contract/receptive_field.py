"""Receptive fields: the context that a window needs around the pixels that it computes.

The computation follows a block of the output back to the input. A block's border is a multiple of STRIDE,
where the grids of all levels have a border too, so that each level only adds the radii of its convolutions.
"""

from __future__ import annotations

from dim.contract.config import STRIDE, NetworkConfig, cue_cell, propagation_cells

ENCODER_DEPTHS = (2, 2, 3, 3, 3)
"""Number of 3×3 convolutions before each pool."""
DECODER_RADIUS = 2
"""Radius, in pixels, of the decoder's 5×5 convolutions: one after each unpooling, and one at the end."""
REFINER_RADIUS = 4
"""Radius, in pixels, of the refiner's four 3×3 convolutions together."""


def exact_context(config: NetworkConfig) -> int:
    """Return the context with which a tile equals the same part of the whole image, up to rounding.

    Returns:
        Pixels on each side, a multiple of STRIDE: 160 without refiner, 192 with one, also with cues of radius
        16; 256 with cues of radius 64; 320 with cues of radius 16 and propagation in 4, 3 and 2 steps.
    """
    return _context(refiner_reach(config, propagation_reach(config)))


def network_context(config: NetworkConfig) -> int:
    """Return the context for everything up to the refiner's alpha and trust, without their propagation.

    Returns:
        Pixels on each side, a multiple of STRIDE; the same as :func:`exact_context` without propagation.
    """
    return _context(refiner_reach(config))


def propagation_context(config: NetworkConfig) -> int:
    """Return the context for the propagation of alpha alone; pixels, a multiple of STRIDE, 0 without it."""
    return -(-propagation_reach(config) // STRIDE) * STRIDE


def _context(logits_reach: int) -> int:
    # Down the decoder: the last level has two convolutions, and each level has half the side.
    reach = logits_reach + 2 * DECODER_RADIUS
    for _ in ENCODER_DEPTHS[1:]:
        reach = _half(reach) + DECODER_RADIUS
    reach = _half(reach)
    # Up the encoder, from the deepest level to the image.
    for depth in reversed(ENCODER_DEPTHS):
        reach = 2 * reach + depth
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
