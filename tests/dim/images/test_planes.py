"""From decoded samples to one plane: trimap, mask or alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dim.errors import InputError
from dim.images.planes import (
    GRAY_TOLERANCE,
    alpha_plane,
    mask_plane,
    require_trimap_scale,
    split,
    trimap_levels,
    trimap_plane,
)

PATH = Path("a.png")
Samples = npt.NDArray[Any]


def samples(*channels: object, dtype: type = np.uint8) -> Samples:
    """Return H, W, samples of one array or list for each channel."""
    return np.stack([np.atleast_2d(np.asarray(channel)) for channel in channels], axis=2).astype(dtype)


RAMP = np.arange(256, dtype=np.uint8)[None]


@pytest.mark.parametrize(("count", "has_alpha"), [(1, False), (2, True), (3, False), (4, True)])
def test_the_last_of_two_or_four_samples_is_alpha(count: int, has_alpha: bool) -> None:
    pixels = np.arange(2 * 3 * count, dtype=np.uint8).reshape(2, 3, count)
    colours, alpha = split(pixels)
    np.testing.assert_array_equal(colours, pixels[..., : count - has_alpha])
    assert (alpha is not None) == has_alpha
    if alpha is not None:
        np.testing.assert_array_equal(alpha, pixels[..., -1])


@pytest.mark.parametrize("plane", [trimap_plane, mask_plane, alpha_plane])
def test_gray_of_8_bits_stays_as_it_is(plane: Any) -> None:
    np.testing.assert_array_equal(plane(samples(RAMP), PATH), RAMP)
    np.testing.assert_array_equal(plane(samples(RAMP, RAMP, RAMP), PATH), RAMP)


@pytest.mark.parametrize("plane", [trimap_plane, mask_plane, alpha_plane])
@given(levels=arrays.arrays(np.uint16, (4, 5)))
def test_16_bits_are_rounded_to_the_nearest_of_8(plane: Any, levels: npt.NDArray[np.uint16]) -> None:
    # Both ends of the scale, so that it is known.
    levels[0, 0], levels[0, 1] = 0, 65535
    expected = np.floor(levels / 257 + 0.5)
    np.testing.assert_array_equal(plane(levels[..., None], PATH), expected)


@pytest.mark.parametrize("plane", [trimap_plane, mask_plane, alpha_plane])
@pytest.mark.parametrize("channel", [0, 2])
@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 257)])
def test_how_far_channels_may_differ(plane: Any, channel: int, dtype: type, unit: int) -> None:
    # Four levels, so that no mask takes it for a silhouette.
    pixels = samples(*[[0, 100, 128, 255]] * 3).astype(dtype) * dtype(unit)
    pixels[0, 1, channel] += GRAY_TOLERANCE * unit
    np.testing.assert_array_equal(plane(pixels, PATH), [[0, 100, 128, 255]])
    pixels[0, 1, channel] += 1
    with pytest.raises(InputError, match="colours"):
        plane(pixels, PATH)


@pytest.mark.parametrize("plane", [trimap_plane, mask_plane, alpha_plane])
def test_16_bits_on_the_scale_of_8_are_an_error(plane: Any) -> None:
    with pytest.raises(InputError, match="from 0 to 255: the scale of 8 bits"):
        plane(samples([0, 128, 255], dtype=np.uint16), PATH)
    assert plane(samples([0, 128, 65535], dtype=np.uint16), PATH).tolist() == [[0, 0, 255]]


@pytest.mark.parametrize(("largest", "fails"), [(0, False), (1, True), (255, True), (256, False)])
def test_the_scale_is_judged_by_the_largest_value(largest: int, fails: bool) -> None:
    require_trimap_scale(np.dtype(np.uint8), largest, PATH)
    if fails:
        with pytest.raises(InputError, match=f"0 to {largest}"):
            require_trimap_scale(np.dtype(np.uint16), largest, PATH)
    else:
        require_trimap_scale(np.dtype(np.uint16), largest, PATH)


def test_part_of_a_trimap_keeps_its_depth_and_any_scale() -> None:
    part = trimap_levels(samples([0, 1, 2], dtype=np.uint16), PATH)
    assert part.dtype == np.uint16
    assert part.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [1, 3])
def test_the_alpha_channel_of_a_trimap_is_opaque(dtype: type, colours: int) -> None:
    opaque = np.iinfo(dtype).max
    levels = [0, opaque // 2 + 1, opaque]
    pixels = samples(*[levels] * colours, [opaque] * 3, dtype=dtype)
    assert trimap_plane(pixels, PATH).tolist() == [[0, 128, 255]]
    pixels[0, 2, -1] -= 1
    with pytest.raises(InputError, match="transparent pixels"):
        trimap_plane(pixels, PATH)


def test_a_silhouette_is_a_mask_whatever_its_colour() -> None:
    assert mask_plane(samples([0, 7], [0, 0], [0, 90]), PATH).tolist() == [[0, 255]]
    assert mask_plane(samples([0, 1, 1]), PATH).tolist() == [[0, 255, 255]]
    with pytest.raises(InputError, match=r"colours(\n.*)*\n  fix: .* no mask: a box or scribbles"):
        mask_plane(samples([0, 7, 70], [0, 0, 0], [0, 90, 0]), PATH)
    with pytest.raises(InputError, match="colours"):
        mask_plane(samples([200, 7], [0, 0], [0, 90]), PATH)


def test_an_alpha_channel_that_is_not_constant_is_the_mask() -> None:
    colours = [[10, 20, 30], [200, 0, 90], [7, 7, 7]]
    assert mask_plane(samples(*colours, [0, 128, 255]), PATH).tolist() == [[0, 128, 255]]
    for constant in (0, 255):
        with pytest.raises(InputError, match="colours"):
            mask_plane(samples(*colours, [constant] * 3), PATH)
        assert mask_plane(samples([0, 255, 255], [constant] * 3), PATH).tolist() == [[0, 255, 255]]


@pytest.mark.parametrize(
    ("levels", "missing"),
    [([0, 60, 127], "no object"), ([128, 200, 255], "no background"), ([0, 0], "no object")],
)
def test_a_mask_has_object_and_background(levels: list[int], missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        mask_plane(samples(levels), PATH)


def test_an_alpha_channel_that_is_not_constant_is_the_alpha() -> None:
    colours = [[10, 20, 30], [200, 0, 90], [7, 7, 7]]
    assert alpha_plane(samples(*colours, [3, 128, 255]), PATH).tolist() == [[3, 128, 255]]
    with pytest.raises(InputError, match="colours"):
        alpha_plane(samples(*colours, [255] * 3), PATH)
    assert alpha_plane(samples([3, 128, 255], [0] * 3), PATH).tolist() == [[3, 128, 255]]


def test_alphas_on_the_scale_of_1_are_an_error() -> None:
    with pytest.raises(InputError, match="only 0 and 1"):
        alpha_plane(samples([0, 1]), PATH)
    assert alpha_plane(samples([0, 2]), PATH).tolist() == [[0, 2]]
    assert alpha_plane(samples([0, 0]), PATH).tolist() == [[0, 0]]


@given(st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]), st.data())
def test_any_samples_give_a_plane_or_a_typed_error(count: int, dtype: type, data: st.DataObject) -> None:
    pixels = data.draw(arrays.arrays(dtype, (3, 4, count)))
    for plane in (trimap_plane, mask_plane, alpha_plane):
        try:
            found = plane(pixels, PATH)
        except InputError:
            continue
        assert found.shape == (3, 4)
        assert found.dtype == np.uint8
