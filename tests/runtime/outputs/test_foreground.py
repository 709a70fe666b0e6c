"""Cut-outs and composites: arithmetic, and the optional estimator of foreground colours."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from dim.errors import InputError, MissingExtraError
from dim_runtime.outputs import foreground


def test_rgba_holds_straight_alpha() -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    cut = foreground.rgba(image, np.array([[0, 1], [0.5, 0.25]], np.float32))
    assert cut[..., :3].min() == 200
    assert cut[..., 3].tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_composite_is_the_formula(dtype: type) -> None:
    draw = np.random.default_rng(0)
    front = draw.integers(0, np.iinfo(dtype).max + 1, (300, 5, 3), dtype)
    alpha = draw.random((300, 5)).astype(np.float32)
    scale = np.iinfo(dtype).max // 255
    expected = alpha[..., None] * front + (1 - alpha[..., None]) * np.array([255, 0, 128]) * scale
    found = foreground.composite(front, alpha, (255, 0, 128))
    assert found.dtype == dtype
    assert np.abs(found - expected).max() < 0.51
    background = np.full_like(front, 7)
    np.testing.assert_array_equal(foreground.composite(front, np.zeros_like(alpha), background), background)
    np.testing.assert_array_equal(foreground.composite(front, np.ones_like(alpha), background), front)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1)])
def test_the_smallest_images_have_a_foreground(size: tuple[int, int]) -> None:
    pytest.importorskip("pymatting")
    image = np.full((*size, 3), 90, np.uint8)
    alpha = np.full(size, 0.5, np.float32)
    (tile,) = foreground.tiles(*size)
    found = foreground.tile_foreground(image, alpha, tile)
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (3, 3), (20, 30)])
def test_a_covering_background_has_the_size(size: tuple[int, int]) -> None:
    background = np.full((20, 30, 3), 9, np.uint8)
    found = foreground.covering(background, *size)
    assert found.shape == (*size, 3)
    assert (found == 9).all()


def test_colours() -> None:
    assert foreground.parse_colour("#0aFF80") == (10, 255, 128)
    assert foreground.parse_colour("#0aF") == foreground.parse_colour("#00AAFF") == (0, 170, 255)
    for text in ("red", "#12", "#1234", "#12345", "#1234567", "0aff80"):
        with pytest.raises(InputError, match="#RRGGBB"):
            foreground.parse_colour(text)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_is_colours_times_alpha(dtype: type) -> None:
    top = np.iinfo(dtype).max
    image = np.full((1, 3, 3), top // 2, dtype)
    cut = foreground.rgba(image, np.array([[0, 0.5, 1]], np.float32), premultiplied=True)
    assert cut.dtype == dtype
    assert cut[0, :, 0].tolist() == [0, np.rint(top // 2 * 0.5), top // 2]
    assert cut[0, :, 3].tolist() == [0, np.rint(top * 0.5), top]


def test_the_curve_of_srgb() -> None:
    """Known values: middle gray 188 is half the light, and the two parts of the curve meet."""
    values = np.array([0, 1, 10, 11, 188, 255], np.float32) / 255
    light = foreground.decode_srgb(values)
    np.testing.assert_allclose(
        light, [0, 0.000303527, 0.00303527, 0.00334654, 0.502886, 1], rtol=2e-5, atol=1e-9
    )
    deep = np.arange(65536, dtype=np.float32) / 65535
    np.testing.assert_array_equal(
        np.rint(foreground.encode_srgb(foreground.decode_srgb(deep)) * 65535), deep * 65535
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_linear_light_blends_light(dtype: type) -> None:
    top = np.iinfo(dtype).max
    white, half = np.full((300, 2, 3), top, dtype), np.full((300, 2), 0.5, np.float32)
    found = foreground.composite(white, half, (0, 0, 0), linear_light=True)
    assert np.abs(found / top - 0.735357).max() < 0.6 / top
    drawn = np.random.default_rng(0).integers(0, top + 1, white.shape, dtype)
    for alpha, expected in ((np.zeros_like(half), drawn), (np.ones_like(half), white)):
        np.testing.assert_array_equal(foreground.composite(white, alpha, drawn, linear_light=True), expected)


@pytest.mark.parametrize("size", [(1, 1), (1024, 1025), (3000, 700)])
def test_tiles_cover_the_image_once_and_see_around_themselves(size: tuple[int, int]) -> None:
    count = np.zeros(size, np.uint8)
    for tile in foreground.tiles(*size):
        count[tile.rows, tile.columns] += 1
        for own, seen, inside, side in (
            (tile.rows, tile.outer_rows, tile.inside[0], size[0]),
            (tile.columns, tile.outer_columns, tile.inside[1], size[1]),
        ):
            assert seen.start == max(own.start - foreground.OVERLAP, 0)
            assert seen.stop == min(own.stop + foreground.OVERLAP, side)
            assert (seen.start + inside.start, seen.start + inside.stop) == (own.start, own.stop)
    assert (count == 1).all()


def test_sizes_must_agree() -> None:
    image, alpha = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match="differ in size"):
        foreground.rgba(image, alpha)
    with pytest.raises(InputError, match="differ in size"):
        foreground.composite(image, alpha, (0, 0, 0))


def test_without_pymatting_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[cutout\]"):
        foreground.require_estimator()


class Scene(NamedTuple):
    """A photograph whose foreground, background and alpha are known: float64 in [0, 1]."""

    foreground: np.ndarray
    background: np.ndarray
    alpha: np.ndarray

    def photograph(self, dtype: type) -> np.ndarray:
        solid = self.alpha[..., None]
        mixed = solid * self.foreground + (1 - solid) * self.background
        return np.rint(mixed * np.iinfo(dtype).max).astype(dtype)


def scene(side: int) -> Scene:
    """Return a round, frayed object of slowly changing reds before slowly changing blues."""
    y, x = np.mgrid[:side, :side] / side
    angle, distance = np.arctan2(y - 0.5, x - 0.5), np.hypot(y - 0.5, x - 0.5)
    alpha = np.clip((0.33 + 0.015 * np.sin(40 * angle) - distance) / 0.06, 0, 1)
    red = np.stack([0.7 + 0.2 * np.sin(9 * x), 0.15 + 0.1 * np.cos(7 * y), 0.1 + 0 * x], -1)
    blue = np.stack([0.1 + 0 * x, 0.3 + 0.2 * np.sin(8 * y), 0.8 + 0.15 * np.cos(6 * x)], -1)
    return Scene(red, blue, alpha)


def fringe(colours: np.ndarray, made: Scene) -> np.ndarray:
    """Return the error of a composite over any background: that of the colours, times alpha; in [0, 1]."""
    error = np.abs(colours / np.iinfo(colours.dtype).max - made.foreground).max(-1) * made.alpha
    return error[(made.alpha > 0) & (made.alpha < 1)]


def estimated(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's colours of a whole image, tile by tile."""
    found = np.empty_like(image)
    for tile in foreground.tiles(*alpha.shape):
        seen = tile.outer_rows, tile.outer_columns
        found[tile.rows, tile.columns] = foreground.tile_foreground(image[seen], alpha[seen], tile)
    return found


@pytest.fixture
def estimator() -> Any:
    return pytest.importorskip("pymatting")


@pytest.mark.usefixtures("estimator")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_estimated_colours_leave_no_fringe_of_the_background(dtype: type) -> None:
    made = scene(256)
    photograph = made.photograph(dtype)
    found = estimated(photograph, made.alpha.astype(np.float32))
    assert found.dtype == dtype
    assert fringe(photograph, made).mean() > 0.08
    assert fringe(found, made).mean() < 0.01
    assert np.percentile(fringe(found, made), 99) < 0.05
    solid = made.alpha == 1
    np.testing.assert_array_equal(found[solid], photograph[solid])


@pytest.mark.usefixtures("estimator")
def test_16_bits_are_not_rounded_to_8() -> None:
    made = scene(256)
    found = estimated(made.photograph(np.uint16), made.alpha.astype(np.float32))
    mixed = (made.alpha > 0) & (made.alpha < 1)
    assert len(np.unique(found[mixed])) > 2000
    assert (found[mixed] % 257 != 0).mean() > 0.9


@pytest.mark.usefixtures("estimator")
def test_tiles_are_as_good_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method's grids depend on what it sees: tiles differ a little from the whole, and are no worse."""
    made = scene(600)
    photograph, alpha = made.photograph(np.uint8), made.alpha.astype(np.float32)
    whole = estimated(photograph, alpha)
    monkeypatch.setattr(foreground, "TILE", 256)
    tiled = estimated(photograph, alpha)
    difference = np.abs(tiled.astype(int) - whole).max(-1) * made.alpha
    assert 0 < difference.max() < 12
    assert difference[(made.alpha > 0) & (made.alpha < 1)].mean() < 0.8
    assert fringe(tiled, made).mean() < fringe(whole, made).mean() + 0.001


@pytest.mark.usefixtures("estimator")
def test_known_tiles_are_copied_and_known_background_is_black(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "TILE", 32)
    image = np.random.default_rng(0).integers(1, 256, (32, 64, 3), np.uint8)
    alpha = np.zeros((32, 64), np.float32)
    alpha[:, 16:32] = 1
    found = estimated(image, alpha)
    np.testing.assert_array_equal(found, np.where(alpha[..., None] == 1, image, 0))


def test_numba_does_not_share_openvino_s_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "THREADING_LAYER_PRIORITY", ["tbb", "omp", "workqueue"])
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    foreground._avoid_shared_tbb()
    assert numba.config.THREADING_LAYER_PRIORITY[0] == "tbb"
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    foreground._avoid_shared_tbb()
    assert numba.config.THREADING_LAYER_PRIORITY[0] == "omp"


@pytest.mark.parametrize(("patience", "count"), [(0.02, 1), (30.0, 0)])
def test_a_long_import_is_explained(caplog: pytest.LogCaptureFixture, patience: float, count: int) -> None:
    with foreground._explained_wait("it compiles", patience):
        time.sleep(0.3)
    assert [record.message for record in caplog.records] == ["it compiles"] * count
