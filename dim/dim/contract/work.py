"""The work of a window by layer, and the margins that each layer needs around the core.

The encoder needs all of a window's context. The decoder's layers need less with each level, and the refiner
a few pixels: what lies further out is dropped on the way (:mod:`dim.contract.cropping`).
"""

from __future__ import annotations

from typing import NamedTuple

from dim.contract.config import NetworkConfig
from dim.contract.cropping import LEVELS, kept_margins
from dim.contract.receptive_field import ENCODER_DEPTHS

ENCODER_STAGES = tuple(zip((64, 128, 256, 512, 512), ENCODER_DEPTHS, strict=True))
"""Published channels and number of 3×3 convolutions before each pool."""

DECODER_STEPS = (
    ("deconv6_1", 512, 1),
    ("deconv5_1", 512, 5),
    ("deconv4_1", 256, 5),
    ("deconv3_1", 128, 5),
    ("deconv2_1", 64, 5),
    ("deconv1_1", 64, 5),
)
"""Name, published output channels and kernel side; an unpooling follows each but the last."""

PROPAGATION_SHARE = 0.07
"""Time of propagation over the time of all other layers. Its multiply-adds are fewer, but it is limited by
memory: measured in ONNX Runtime on the embedded network."""


class Work(NamedTuple):
    """Layers that compute the same part of a window.

    Attributes:
        margin: pixels that they compute around the core, at most; None for the whole window.
        multiply_adds: of their convolutions, for each pixel of the image.
    """

    margin: int | None
    multiply_adds: float


def layer_work(config: NetworkConfig) -> tuple[Work, ...]:
    """Return the work of the encoder, and of each level of the decoder, deepest first.

    The last one includes the refiner.
    """
    encoder, inputs = _encoder(config)
    found = [Work(None, encoder)]
    margins = kept_margins(config)
    for level, (_, published, side) in zip(reversed(range(LEVELS)), DECODER_STEPS[1:], strict=True):
        outputs = config.channels(published)
        multiply_adds = inputs * outputs * side * side / 4**level
        found.append(Work(margins[level] << (level + 1), multiply_adds))
        inputs = outputs
    # The last convolution and the refiner compute the same part as the decoder's last level.
    last = found[-1]
    return (*found[:-1], last._replace(multiply_adds=last.multiply_adds + inputs * 25 + _refiner(config)))


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
