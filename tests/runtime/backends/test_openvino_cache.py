"""Compiled graphs on disk: the same alphas, and no trust in damaged files or open folders."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from dim.arrays import Floating, UInt8
from dim_runtime import Matting
from dim_runtime.backends.open import default_model
from dim_runtime.backends.openvino import OpenVinoBackend
from dim_runtime.errors import InputError
from dim_runtime.images.samples import lemur

pytest.importorskip("openvino")

Window = tuple[UInt8, UInt8]


@pytest.fixture(scope="module")
def window() -> Window:
    image, trimap = lemur()
    part = np.s_[None, 100:164, 200:264]
    return np.ascontiguousarray(image[part]), np.ascontiguousarray(trimap[part])


@pytest.fixture(scope="module")
def without(window: Window) -> Floating:
    return OpenVinoBackend(default_model(), threads=1).run(*window)


def run_with(cache: Path, window: Window) -> Floating:
    return OpenVinoBackend(default_model(), threads=1, cache=cache).run(*window)


def test_the_second_process_loads_what_the_first_compiled(
    window: Window, without: Floating, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "new" / "compiled"
    np.testing.assert_array_equal(run_with(cache, window), without)
    files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(files) == 2, "the network, and its propagation"
    np.testing.assert_array_equal(run_with(cache, window), without)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files
    for file in files:
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 0x5A
        file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(run_with(cache, window), without)
    assert caplog.text.count("is damaged") == 2
    assert all(file.stat().st_mtime_ns > earlier for file, earlier in files.items()), "written again"


def test_what_openvino_cannot_load_is_compiled_again(
    window: Window, without: Floating, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_with(tmp_path, window)
    content = b"not a graph"
    for file in tmp_path.iterdir():
        file.write_bytes(hashlib.sha256(content).digest() + content)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(run_with(tmp_path, window), without)
    assert caplog.text.count("cannot load") == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match="only its owner"):
        OpenVinoBackend(default_model(), cache=tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot use the cache"):
        OpenVinoBackend(default_model(), cache=tmp_path / "file")


def test_other_back_ends_refuse_a_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--backend openvino"):
        Matting(cache=tmp_path)
    with Matting(backend="openvino", cache=str(tmp_path / "compiled"), threads=1):
        assert len(list((tmp_path / "compiled").iterdir())) == 2
