"""The trimap vocabulary: reading, validation, making one from an alpha or a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim import trimap
from dim.errors import InputError


@pytest.mark.parametrize(("erode", "dilate"), [(1, 1), (2, 2), (3, 5), (10, 20), (29, 29)])
def test_from_alpha_equals_the_reference(golden: Any, erode: int, dilate: int) -> None:
    arrays = golden("E_trimap")
    made = trimap.from_alpha(arrays["alpha"], erode=erode, dilate=dilate)
    np.testing.assert_array_equal(made, arrays[f"trimap_e{erode}_d{dilate}"])


def test_from_alpha_equals_the_reference_s_random_one(golden: Any) -> None:
    arrays = golden("E_trimap")
    erode, dilate = map(int, arrays["random_seed7_erode_dilate"])
    made = trimap.from_alpha(arrays["alpha"], erode=erode, dilate=dilate)
    np.testing.assert_array_equal(made, arrays["trimap_random_seed7"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (10, 0), (11, 128), (127, 128), (128, 128), (244, 128), (245, 255), (255, 255)],
)
def test_thresholds(value: int, expected: int) -> None:
    reading = trimap.canonical(np.full((2, 3), value, np.uint8))
    assert (reading.trimap == expected).all()
    assert reading.mapped == (0 if value in (0, 128, 255) else 6)


def test_canonical_is_idempotent_and_leaves_its_argument() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    before = every.copy()
    once = trimap.canonical(every)
    assert trimap.canonical(once.trimap).mapped == 0
    assert set(np.unique(once.trimap)) == {0, 128, 255}
    np.testing.assert_array_equal(every, before)


def test_unknown_is_the_rest() -> None:
    assert trimap.unknown(np.array([[0, 1, 128, 254, 255]], np.uint8)).tolist() == [
        [False, True, True, True, False]
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), bool),
        [[0, 255]],
        None,
    ],
)
def test_validate_refuses(wrong: Any) -> None:
    with pytest.raises(InputError, match="cannot use this trimap"):
        trimap.validate(wrong)


def test_from_mask_has_a_band_on_both_sides() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    row = trimap.from_mask(mask, inside=4, outside=6)[32]
    assert (row == 128).sum() == 4 + 6
    assert (row[: 32 - 6] == 0).all()
    assert (row[32 + 4 :] == 255).all()


@pytest.mark.parametrize(("inside", "outside"), [(-1, 3), (3, -1)])
def test_from_mask_refuses_negative_bands(inside: int, outside: int) -> None:
    with pytest.raises(InputError, match="0 or more"):
        trimap.from_mask(np.zeros((4, 4), np.uint8), inside=inside, outside=outside)


def test_from_alpha_refuses_an_element_without_side() -> None:
    with pytest.raises(InputError, match="1 or more"):
        trimap.from_alpha(np.zeros((4, 4), np.uint8), erode=0, dilate=1)


def test_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trimap.png"
    cv2.imwrite(str(path), np.array([[3, 130, 250]], np.uint8))
    reading = trimap.read(path)
    assert reading.trimap.tolist() == [[0, 128, 255]]
    assert reading.mapped == 3


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_read_refuses_what_is_no_image(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "trimap.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the trimap"):
        trimap.read(path)


@pytest.mark.parametrize(("dtype", "opaque"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_known_pixels_come_from_the_trimap(dtype: type, opaque: float) -> None:
    alpha = np.full((2, 3), 0.5 * opaque).astype(dtype)
    found = trimap.apply_known(alpha, np.array([[0, 128, 255]] * 2, np.uint8))
    assert found.dtype == dtype
    assert found.tolist() == [[0, alpha[0, 1], opaque]] * 2
    assert len(np.unique(alpha)) == 1
