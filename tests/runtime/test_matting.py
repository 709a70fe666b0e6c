"""The front door: validation, warnings, and exactness with the embedded model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.errors import MemoryLimitError, TileError, TrimapWarning
from dim_runtime.samples import lemur


@pytest.fixture
def matting(identity: Any) -> Matting:
    return Matting.from_backend(identity)


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (200, 300)])
def test_alpha_is_float32_of_the_images_size(
    matting: Matting, pair: Any, whole: Any, identity: Any, size: Any
) -> None:
    image, trimap = pair(*size)
    alpha = matting(image, trimap)
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(alpha, whole(identity, image, trimap).astype(np.float32))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[1]],
    ],
    ids=["gray", "four channels", "float", "empty", "list"],
)
def test_wrong_images(matting: Matting, image: Any) -> None:
    with pytest.raises(InputError, match="image"):
        matting(image, np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    "trimap",
    [np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.float32), np.zeros((8, 8), np.bool_), None],
    ids=["three axes", "float", "bool", "none"],
)
def test_wrong_trimaps(matting: Matting, trimap: Any) -> None:
    with pytest.raises(InputError, match="trimap"):
        matting(np.zeros((8, 8, 3), np.uint8), trimap)


def test_a_size_mismatch_names_both(matting: Matting) -> None:
    with pytest.raises(InputError, match=r"(?s)image of 9×8 px.*trimap of 8×9 px"):
        matting(np.zeros((8, 9, 3), np.uint8), np.zeros((9, 8), np.uint8))


def test_mapped_trimap_pixels_are_counted_in_a_warning(matting: Matting, image: Any) -> None:
    trimap = np.zeros((4, 4), np.uint8)
    trimap[0, :3] = 3, 100, 250
    with pytest.warns(TrimapWarning, match="3 pixels") as caught:
        alpha = matting(image(4, 4), trimap)
    assert caught[0].filename == __file__
    assert (alpha[0, 0], alpha[0, 2]) == (0, 1)


def test_a_canonical_trimap_warns_of_nothing(matting: Matting, pair: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matting(*pair(20, 30))


def test_map_keeps_the_order(matting: Matting, pair: Any) -> None:
    pairs = [pair(10, 10 + n, seed=n) for n in range(3)]
    results = list(matting.map(iter(pairs)))
    assert [alpha.shape for alpha in results] == [(10, 10), (10, 11), (10, 12)]


def test_closing(identity: Any, pair: Any) -> None:
    with Matting.from_backend(identity) as matting:
        matting(*pair(8, 8))
    assert identity.closed
    matting.close()
    with pytest.raises(InputError, match="closed"):
        matting(*pair(8, 8))


def test_the_callback_sees_every_window(identity: Any, pair: Any) -> None:
    calls: list[tuple[int, int]] = []
    matting = Matting.from_backend(identity, tile=448, progress=lambda *call: calls.append(call))
    image, trimap = pair(900, 700)
    matting(image, trimap)
    count = len(matting.plan(trimap).windows)
    assert calls[-1] == (count, count)


def test_the_bar_is_written_to_standard_error(
    identity: Any, pair: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Matting.from_backend(identity, progress=True)(*pair(8, 8))
    assert capsys.readouterr().out == ""


def test_plan_and_call_raise_the_same(identity: Any, pair: Any) -> None:
    image, trimap = pair(600, 700)
    small = Matting.from_backend(identity, tile=64)
    with pytest.raises(TileError):
        small.plan(trimap)
    with pytest.raises(TileError):
        small(image, trimap)
    poor = Matting.from_backend(identity, memory_limit=10**6)
    with pytest.raises(MemoryLimitError, match="at least"):
        poor(image, trimap)


def test_options_are_checked_before_the_model_is_loaded() -> None:
    with pytest.raises(InputError, match="tile"):
        Matting("no-such-model.onnx", tile=100)


@pytest.mark.parametrize("tile", [448, 640])
def test_the_embedded_model_tiled_is_the_whole_image(tile: int) -> None:
    pytest.importorskip("onnxruntime")
    image, trimap = lemur()
    with Matting() as whole, Matting(tile=tile) as tiled:
        assert len(whole.plan(trimap).windows) == 1
        assert len(tiled.plan(trimap).windows) > 1
        difference = np.abs(whole(image, trimap) - tiled(image, trimap))
    assert (difference > 1 / 255).mean() <= 1e-4


def test_the_lemur_is_canonical() -> None:
    image, trimap = lemur()
    assert image.shape == (*trimap.shape, 3) == (440, 680, 3)
    assert set(np.unique(trimap)) == {0, 128, 255}
