"""Memory-mapped files by windows: the same values, nothing lost, pages released."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dim_runtime.arrays import BAND_BYTES, MappedWindows, by_windows, held_bytes
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
