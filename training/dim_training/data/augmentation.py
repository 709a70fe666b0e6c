"""Photometric changes: what makes clean cut-outs look as if a camera had taken them.

Everything random is drawn first (:func:`draw_look`) and applied later, on a loader's CPU here or on the
training device in :mod:`dim_training.data.on_device`: both make the same sample of the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Float32, Random, UInt8
from dim_training.config import LARGEST_NOISE
from dim_training.data.procedural.canvas import log_uniform
from dim_training.data.transforms import Layers

DEFOCUSED = 0.75
"""Share of samples whose background is out of focus."""
LARGEST_BLUR = 8.0
"""σ of the strongest defocus, pixels."""
NOISY, COMPRESSED = 0.6, 0.2
"""Shares of samples with sensor noise and with JPEG artefacts."""


class Tone(NamedTuple):
    """A change of colours.

    Attributes:
        table: uint8 256, 3: the new value of each value of each channel (gamma and gain).
        saturation: 0 gray, 1 unchanged.
    """

    table: UInt8
    saturation: float


class Look(NamedTuple):
    """Everything that is random about the colours of one sample.

    Attributes:
        blur: σ of the background's defocus, pixels; 0 for none.
        noise: σ of the sensor's noise, gray levels; 0 for none.
        noise_seed: where the noise itself comes from.
        jpeg: quality of JPEG compression, of 100; 0 for none.
        exponent: colours are mixed as this power of their values; 1 mixes the values themselves.
    """

    foreground: Tone
    background: Tone
    blur: float
    noise: float
    noise_seed: int
    jpeg: int
    exponent: float = 1.0


def draw_look(
    rng: Random, exponents: tuple[float, float] = (1.0, 1.0), *, largest_noise: float = LARGEST_NOISE
) -> Look:
    """Draw random tones, defocus (σ 0.7 to 8 px, log-uniform), noise and compression.

    Args:
        exponents: smallest and largest exponent of the mixture of colours; nothing is drawn for equal ones.
        largest_noise: σ of the strongest noise, gray levels.
    """
    smallest, largest = exponents
    return Look(
        foreground=draw_tone(rng, strength=0.7),
        background=draw_tone(rng),
        blur=log_uniform(0.7, LARGEST_BLUR, rng) * (rng.random() < DEFOCUSED),
        noise=float(rng.uniform(0, largest_noise)) * (rng.random() < NOISY),
        noise_seed=int(rng.integers(2**31)),
        jpeg=int(rng.integers(60, 96)) * (rng.random() < COMPRESSED),
        exponent=float(rng.uniform(smallest, largest)) if largest > smallest else smallest,
    )


def draw_tone(rng: Random, strength: float = 1.0) -> Tone:
    """Draw a random gamma, a gain for each channel, and a saturation.

    Args:
        strength: factor of their spread; 0 changes nothing.
    """
    gamma = float(np.exp(rng.normal(0, 0.2 * strength)))
    gains = np.exp(rng.normal(0, 0.12 * strength, 3) + rng.normal(0, 0.15 * strength))
    ramp = (np.arange(256) / 255.0) ** gamma
    table = np.clip(255 * ramp[:, None] * gains, 0, 255).astype(np.uint8)
    return Tone(table, float(np.clip(rng.normal(1, 0.3 * strength), 0, 1.8)))


def change_layers(layers: Layers, look: Look) -> Layers:
    """Return both layers in their new tones, the background out of focus."""
    background = apply_tone(layers.background, look.background)
    return layers._replace(
        foreground=apply_tone(layers.foreground, look.foreground),
        background=defocus(background, look.blur) if look.blur else background,
    )


def apply_tone(image: UInt8, tone: Tone) -> UInt8:
    """Apply one look-up table and one mix with gray; RGB uint8 H, W, 3."""
    toned = cv2.LUT(image, tone.table[None])
    gray = cv2.cvtColor(cv2.cvtColor(toned, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _as_uint8(cv2.addWeighted(toned, tone.saturation, gray, 1 - tone.saturation, 0))


def defocus(image: UInt8, sigma: float) -> UInt8:
    """Blur uint8 H, W, 3 by a Gaussian, σ in pixels."""
    return _as_uint8(cv2.GaussianBlur(image, (0, 0), sigma))


def photograph(image: Float32, look: Look) -> Float32:
    """Add noise and compression to a composite; float32 H, W, 3, RGB 0-255 in and out."""
    if look.noise:
        drawn = np.random.default_rng(look.noise_seed).standard_normal(image.shape, dtype=np.float32)
        image = np.clip(image + drawn * np.float32(look.noise), 0, 255)
    return _compressed(image, look.jpeg) if look.jpeg else image


def _compressed(image: Float32, quality: int) -> Float32:
    eight_bits = image.round().astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", eight_bits, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.float32)


def _as_uint8(image: npt.NDArray[np.generic]) -> UInt8:
    return image.astype(np.uint8, copy=False)
