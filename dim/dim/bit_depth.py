"""Samples of 8 and 16 bits: conversion between the two, and from alpha in [0, 1]."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dim.arrays import Floating, Image, UInt8

Depth = Literal[8, 16]
"""Bits of a sample."""


def quantise(alpha: Floating, depth: Depth) -> Image:
    """Convert alpha in [0, 1] to whole numbers of 8 or 16 bits; halves are rounded to even.

    Returns:
        uint8 or uint16 in the shape of ``alpha``, from 0 to 2**depth - 1.
    """
    scaled = np.multiply(alpha, 2**depth - 1, dtype=np.float32)
    np.rint(scaled, out=scaled)
    levels: Image = scaled.astype(np.uint8 if depth == 8 else np.uint16)
    return levels


def quantise8(alpha: Floating) -> UInt8:
    """Convert alpha in [0, 1] to uint8 levels 0 to 255; halves are rounded to even."""
    return quantise(alpha, 8).astype(np.uint8, copy=False)


def to_depth(image: Image, depth: Depth) -> Image:
    """Convert an image to 8 or 16 bits: multiply by 257, or divide by 257 and round (there are no ties).

    Args:
        image: uint8 or uint16 of any shape.

    Returns:
        uint8 or uint16 of this shape; the image itself if it has the depth.
    """
    if depth_of(image) == depth:
        return image
    if depth == 16:
        return image.astype(np.uint16) * np.uint16(257)
    return eight_bits(image)


def eight_bits(image: Image) -> UInt8:
    """Convert an image to 8 bits: :func:`to_depth` with the type uint8."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def depth_of(image: Image) -> Depth:
    """Return the bits of a sample: 8 for uint8, 16 for uint16."""
    return 8 if image.dtype == np.uint8 else 16
