"""Memory-mapped files by windows: the same values, nothing lost, pages released."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.arrays import BAND_BYTES, MappedWindows, by_windows, held_bytes
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.memory import resident_bytes

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="pages are released on Linux only")


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap:
    array = np.memmap(tmp_path / "pixels", np.uint16, "w+", shape=(300, 200, 3))
    array[:] = np.random.default_rng(0).integers(0, 65536, array.shape)
    return array


@linux_only
@pytest.mark.parametrize("key", [slice(10, 20), (slice(0, 300), slice(5, 190)), (slice(7, 8), slice(0, 1))])
def test_reading_and_writing_are_those_of_the_array(mapped: np.memmap, key: object) -> None:
    windows = by_windows(mapped)
    assert isinstance(windows, MappedWindows)
    np.testing.assert_array_equal(windows[key], mapped[key])
    assert windows[key].dtype == np.uint16
    windows[key] = 7
    windows[key] += 1
    assert (mapped[key] == 8).all()
    assert (np.memmap(mapped.filename, np.uint16, "r", shape=mapped.shape)[key] == 8).all()


@linux_only
def test_views_of_a_file_are_files_too(mapped: np.memmap) -> None:
    for view in (mapped[5:, ::2], np.asarray(mapped), mapped.swapaxes(0, 1)):
        windows = by_windows(view)
        assert isinstance(windows, MappedWindows)
        np.testing.assert_array_equal(windows[2:30, 3:60], view[2:30, 3:60])


@linux_only
def test_private_changes_are_not_given_back(mapped: np.memmap) -> None:
    private = np.memmap(mapped.filename, np.uint16, "c", shape=mapped.shape)
    private[:] = 3
    assert by_windows(private) is private
    assert held_bytes(private) == private.nbytes
    assert (private == 3).all()


def test_other_arrays_stay_as_they_are() -> None:
    for array in (np.zeros(3), [1, 2], None):
        assert by_windows(array) is array
        assert held_bytes(array) == 0


@linux_only
def test_pages_do_not_pile_up(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "large", np.uint8, "w+", shape=(12 * BAND_BYTES // 4096, 4096))
    windows, before = by_windows(array), resident_bytes()
    for y in range(0, len(array), 512):
        windows[y : y + 512] = 200
        assert windows[y : y + 512].min() == 200
    assert resident_bytes() - before < 2 * BAND_BYTES
    assert np.asarray(array).min() == 200
    assert resident_bytes() - before > 10 * BAND_BYTES


class _Convertible:
    """What another library might pass: nothing but ``__array__``."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.array


@pytest.fixture
def small_pair() -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 40, 50, 3 and its trimap."""
    image = np.random.default_rng(3).integers(0, 256, (40, 50, 3), np.uint8)
    trimap = np.full((40, 50), 128, np.uint8)
    trimap[:, :10], trimap[:, 40:] = 0, 255
    return image, trimap


@pytest.mark.parametrize("kind", ["PIL", "__array__", "torch"])
def test_what_converts_to_an_array_gives_the_array_s_alpha(
    small_pair: tuple[np.ndarray, np.ndarray], kind: str
) -> None:
    if kind == "__array__":
        made = [_Convertible(array) for array in small_pair]
    elif kind == "PIL":
        made = [pytest.importorskip("PIL.Image").fromarray(array) for array in small_pair]
    else:
        made = [pytest.importorskip("torch").from_numpy(array) for array in small_pair]
    with Matting.from_backend(FakeBackend()) as matting:
        expected = matting(*small_pair)
        np.testing.assert_array_equal(matting(*made), expected)
        np.testing.assert_array_equal(next(matting.map([tuple(made)])), expected)
        out = np.empty(expected.shape, np.float32)
        matting.into(*made, out)
        np.testing.assert_array_equal(out, expected)
        assert matting.plan(made[1]).windows == matting.plan(small_pair[1]).windows
    with Matting.from_backend(FakeBackend(), memory_limit="1TB") as limited:
        np.testing.assert_array_equal(next(limited.map([tuple(made)])), expected)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda i, t: (i / 255.0, t), r"image.clip\(0, 1\) \* 255"),
        (lambda i, t: (i.astype(np.float32), t), r"image.clip\(0, 255\).round"),
        (lambda i, t: (i * 257.0, t), "65535"),
        (lambda i, t: (i * np.nan, t), "for finite values"),
        (lambda i, t: (i, t > 128), "from_soft_mask"),
        (lambda i, t: (i.tolist(), t), "dtype='uint8'"),
    ],
)
def test_arrays_of_other_kinds_get_the_fix_that_fits(
    small_pair: tuple[np.ndarray, np.ndarray], change: Callable[..., tuple], fix: str
) -> None:
    with Matting.from_backend(FakeBackend()) as matting, pytest.raises(InputError, match=fix):
        matting(*change(*small_pair))


@pytest.mark.parametrize(
    ("noun", "mode"), [("image", "RGBA"), ("image", "P"), ("trimap", "1"), ("trimap", "RGB")]
)
def test_a_pil_image_of_another_mode(small_pair: tuple[np.ndarray, np.ndarray], noun: str, mode: str) -> None:
    pil = pytest.importorskip("PIL.Image")
    image, trimap = map(pil.fromarray, small_pair)
    given = (image.convert(mode), trimap) if noun == "image" else (image, trimap.convert(mode))
    with Matting.from_backend(FakeBackend()) as matting, pytest.raises(InputError, match=f"mode {mode}"):
        matting(*given)


def test_what_cannot_be_converted_is_an_input_error(small_pair: tuple[np.ndarray, np.ndarray]) -> None:
    class OnDevice:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("it lies in the memory of a GPU")

    with Matting.from_backend(FakeBackend()) as matting, pytest.raises(InputError, match="memory of a GPU"):
        matting(OnDevice(), small_pair[1])
