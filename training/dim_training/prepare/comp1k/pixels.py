"""The pictures of Composition-1k: a background cut to its foreground, and the composite of both.

Arrays are uint8 H, W, 3 RGB. Decoding, conversion and scaling are Pillow's, so that every pixel is the one
that MMEditing's preparation gives.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from dim.arrays import UInt8
from dim.errors import InputError
from dim_training.data.annotations import Probe, Size, probe

_BAND = 64
"""Rows composed at once: float64 copies of a whole photograph would take gigabytes."""


def read_rgb(path: Path) -> Image.Image:
    """Read a file as an RGB picture of 8 bits; embedded colour profiles and orientations are ignored.

    Raises:
        InputError: no image, or a damaged one.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise InputError(f"cannot read {path}", why=str(error)) from error


def fit_background(photograph: Image.Image, size: Size) -> Image.Image:
    """Cut the top left window of ``size``, after bicubic enlargement where the photograph is too small."""
    width, height = size
    ratio = max(width / photograph.width, height / photograph.height)
    if ratio > 1:
        enlarged = (math.ceil(photograph.width * ratio), math.ceil(photograph.height * ratio))
        photograph = photograph.resize(enlarged, Image.Resampling.BICUBIC)
    return photograph.crop((0, 0, width, height))


def composite(foreground: UInt8, background: UInt8, alpha: UInt8) -> UInt8:
    """Return ``F·α + B·(1 − α)`` in float64, truncated: the published composites.

    Args:
        foreground, background: uint8 H, W, 3.
        alpha: uint8 H, W, 3, three channels like the colours, 0-255.
    """
    merged = np.empty_like(foreground)
    for top in range(0, len(foreground), _BAND):
        rows = slice(top, top + _BAND)
        opacity = alpha[rows] / 255.0
        merged[rows] = (foreground[rows] * opacity + background[rows] * (1.0 - opacity)).astype(np.uint8)
    return merged


def probe_all(path: Path) -> Probe:
    """Decode a file to its last pixel: its size, or what is wrong with it."""
    return probe(path, _decode)


def _decode(image: Image.Image) -> Size:
    size = image.size
    # JPEG only: an eighth of the size needs all of the file, but a fraction of the arithmetic.
    image.draft(None, (1, 1))
    image.load()
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a channel (mode {image.mode})")
    return size
