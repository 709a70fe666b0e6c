"""Samples of 8 and 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from dim import bit_depth


def test_halves_go_to_the_even_neighbour() -> None:
    alpha = np.array([[0.5, 1.5, 2.5, 254.5]], np.float64) / 255
    np.testing.assert_array_equal(bit_depth.quantise(alpha, 8), [[0, 2, 2, 254]])


@pytest.mark.parametrize("depth", [8, 16])
def test_the_ends_of_alpha_are_exact(depth: bit_depth.Depth) -> None:
    levels = bit_depth.quantise(np.array([[0.0, 1.0]], np.float32), depth)
    assert levels.tolist() == [[0, 2**depth - 1]]
    assert bit_depth.depth_of(levels) == depth


def test_depths_convert_and_come_back() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    deep = bit_depth.to_depth(image, 16)
    assert deep.max() == 65535
    np.testing.assert_array_equal(bit_depth.to_depth(deep, 8), image)
    everything = np.arange(65536, dtype=np.uint16)[None]
    np.testing.assert_array_equal(bit_depth.eight_bits(everything), np.rint(everything / 257))
