"""Trimaps of masks, strokes and boxes, on pictures whose object is known."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from dim.arrays import UInt8
from dim.errors import InputError
from dim_runtime.trimaps.bands import chosen_band, distance, from_soft_mask, narrowed, resized_band, shrunk
from dim_runtime.trimaps.grabcut import _features, _nearer, _without_specks
from dim_runtime.trimaps.strokes import Box, Strokes, _agreed, _covered, _outside, propose, read_strokes

HEIGHT, WIDTH, RADIUS = 240, 320, 70


def disc(radius: float = RADIUS, height: int = HEIGHT, width: int = WIDTH) -> UInt8:
    """Return a disc in the middle, 0 and 255."""
    distance = np.hypot(*np.ogrid[-height / 2 : height / 2, -width / 2 : width / 2])
    return np.where(distance < radius, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def picture() -> UInt8:
    """Return an orange disc over blue, with noise."""
    colours = np.where(disc()[..., None] > 0, (220, 120, 30), (30, 80, 160))
    noise = np.random.default_rng(0).normal(0, 12, colours.shape)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def strokes(*marks: tuple[int, tuple[int, int], tuple[int, int]]) -> Strokes:
    made = Strokes.none(HEIGHT, WIDTH)
    for level, start, end in marks:
        layer = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.line(layer, start, end, 1, 7)
        made.levels[layer > 0] = level
        made.marked[layer > 0] = True
    return made


CROSS = (255, (150, 110), (170, 130))
BORDERS = [(0, (10, 10), (310, 10)), (0, (10, 230), (310, 230)), (0, (10, 10), (10, 230))]


def require_disc(trimap: UInt8) -> None:
    """Require that the border is unknown, and that the pixels far from it are right."""
    assert set(np.unique(trimap)) == {0, 128, 255}
    truth = disc()
    assert (truth[trimap == 255] == 255).all(), "no background is called foreground"
    assert (truth[trimap == 0] == 0).all(), "no foreground is called background"
    ring = (disc(RADIUS + 1) > 0) & (disc(RADIUS - 1) == 0)
    assert (trimap[ring] == 128).all()
    assert (trimap == 128).mean() < 0.25


def test_strokes_find_the_disc(picture: UInt8) -> None:
    require_disc(propose(picture, strokes(CROSS, *BORDERS)))


def test_a_box_finds_the_disc(picture: UInt8) -> None:
    require_disc(propose(picture, Strokes.none(HEIGHT, WIDTH), Box(70, 30, 180, 180)))


def test_16_bits_and_a_large_picture(picture: UInt8) -> None:
    large = cv2.resize(picture, None, fx=4, fy=4).astype(np.uint16) * 257
    marks = strokes(CROSS, *BORDERS)
    levels = cv2.resize(marks.levels, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    marked = cv2.resize(marks.marked.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    trimap = propose(large, Strokes(levels.astype(np.uint8), marked.astype(np.bool_)))
    truth = disc(4 * RADIUS, 4 * HEIGHT, 4 * WIDTH)
    assert (truth[trimap == 255] == 255).all()
    assert (truth[trimap == 0] == 0).all()


def test_thin_marks_on_a_large_picture_count() -> None:
    """A dot covers a 36th of a small pixel."""
    region = np.zeros((60, 60), np.bool_)
    region[::12, ::12] = True
    assert np.count_nonzero(_covered(region, (10, 10))) == 25
    assert not _covered(np.zeros_like(region), (10, 10)).any()


def test_pixels_on_which_the_runs_disagree_are_unknown() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    inner, outer = disc(40) > 0, disc(RADIUS) > 0
    trimap = _agreed([inner, outer], picture, 5)
    assert (trimap[inner & (disc(33) > 0)] == 255).all()
    assert (trimap[outer & ~inner] == 128).all()
    assert (trimap[disc(RADIUS + 7) == 0] == 0).all()
    np.testing.assert_array_equal(trimap, _agreed([outer, inner], picture, 5))
    # Without a common pixel nothing is foreground.
    assert not (_agreed([inner, ~outer], picture, 5) == 255).any()


def test_strokes_are_kept_as_they_are(picture: UInt8) -> None:
    marks = strokes(CROSS, *BORDERS, (128, (20, 120), (60, 120)), (0, (159, 60), (161, 60)))
    trimap = propose(picture, marks)
    np.testing.assert_array_equal(trimap[marks.marked], marks.levels[marks.marked])


def test_the_same_strokes_give_the_same_trimap(picture: UInt8) -> None:
    marks = strokes(CROSS, *BORDERS)
    np.testing.assert_array_equal(propose(picture, marks), propose(picture, marks))


def test_specks_that_no_stroke_touches_are_dropped() -> None:
    region = np.zeros((300, 400), np.bool_)
    region[50:250, 50:250] = True
    gap, speck, touched = np.s_[10:15, 300:305], np.s_[100:101, 300:302], np.s_[200:201, 300:302]
    for part in (gap, speck, touched):
        region[part] = True
    marked = np.zeros_like(region)
    marked[200, 300] = True
    kept = _without_specks(region, marked)
    expected = region.copy()
    expected[speck] = False
    np.testing.assert_array_equal(kept, expected)


def test_gaps_of_the_object_stay_open(picture: UInt8) -> None:
    """A gap between leaves is no speck, although no stroke touches it."""
    leafy = picture.copy()
    leafy[150:162, 185:197] = (30, 80, 160)
    assert (propose(leafy, strokes(CROSS, *BORDERS))[152:160, 187:195] != 255).all()


def test_a_stroke_over_the_unknown_widens_the_band_where_it_passes(picture: UInt8) -> None:
    # 8 px outside of the disc: what lies between the stroke and the border becomes unknown.
    right = WIDTH // 2 + RADIUS
    marks = (CROSS, *BORDERS)
    plain = propose(picture, strokes(*marks))
    widened = propose(picture, strokes(*marks, (128, (right + 8, 110), (right + 8, 130))))
    assert (widened[118:122, right : right + 13] == 128).all()
    assert (widened == 128).sum() > (plain == 128).sum()
    far = np.s_[:, : WIDTH // 2]
    np.testing.assert_array_equal(widened[far], plain[far])


def test_other_strokes_stop_an_unknown_one(picture: UInt8) -> None:
    right = WIDTH // 2 + RADIUS
    marks = strokes(
        CROSS, *BORDERS, (128, (right + 14, 120), (right + 14, 120)), (0, (right + 30, 90), (right + 30, 150))
    )
    assert (propose(picture, marks)[90:150, right + 27 :] == 0).all()


def test_colour_and_position_together_find_the_nearest_stroke() -> None:
    """Half of a bar lies nearer to the background's strokes, but has the colour of the object's."""
    picture = np.full((HEIGHT, WIDTH, 3), (30, 80, 160), np.uint8)
    bar = np.s_[100:140, 20:300]
    picture[bar] = (220, 120, 30)
    marks = strokes((255, (30, 120), (50, 120)), (0, (240, 80), (300, 80)), (0, (240, 160), (300, 160)))
    nearer = _nearer(_features(picture), marks.at(255), marks.at(0), 60.0)
    assert nearer[105:135, 25:295].all()
    nearer[90:150, 10:310] = False
    assert not nearer[:, 200:].any()


@pytest.mark.parametrize(
    ("marks", "box", "part"),
    [
        ([], None, "no foreground and no background stroke"),
        ([(128, (30, 120), (50, 120))], None, "no foreground and no background stroke"),
        ([BORDERS[0]], None, "no foreground stroke"),
        ([CROSS], None, "no background stroke"),
        ([], Box(0, 0, WIDTH, HEIGHT), "a box as large as the image"),
        ([], Box(300, 0, 100, 100), "100×100 px at 300, 0"),
        ([], Box(10, 10, 1, 50), "1×50 px"),
    ],
)
def test_marks_that_do_not_suffice(picture: UInt8, marks: list, box: Box | None, part: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=part):
        propose(picture, strokes(*marks), box)


def test_a_box_that_ends_hardly_before_the_border_reaches_it() -> None:
    """The object's last rows would be certain background; a box over nearly all of the image is kept."""
    outside = _outside(Box(60, 1, 200, 237), 240, 320)
    assert not outside[:, 60:260].any()
    assert outside[:, :60].all()
    assert outside[:, 260:].all()
    assert _outside(Box(1, 1, 318, 238), 240, 320).sum() == 240 * 320 - 318 * 238


def test_a_box_that_is_smaller_than_a_pixel_of_the_copy() -> None:
    with pytest.raises(InputError, match="a box that is too small"):
        propose(np.zeros((60, 8000, 3), np.uint8), Strokes.none(60, 8000), Box(11, 11, 2, 2))


@pytest.mark.parametrize("pattern", ["one background pixel", "checkerboard"])
def test_strokes_that_cover_the_same_pixels_of_the_copy(pattern: str) -> None:
    """GrabCut needs both kinds of pixels."""
    levels = np.full((96, 2048), 255, np.uint8)
    if pattern == "checkerboard":
        levels[::2, ::2] = levels[1::2, 1::2] = 0
    else:
        levels[50, 1000] = 0
    picture = np.random.default_rng(0).integers(0, 256, (96, 2048, 3), np.uint8)
    with pytest.raises(InputError, match="cover the same places"):
        propose(picture, Strokes(levels, np.ones(levels.shape, np.bool_)))


def test_strokes_of_another_size(picture: UInt8) -> None:
    with pytest.raises(InputError, match="10×20 px"):
        propose(picture, Strokes.none(20, 10))


def test_strokes_of_a_file(tmp_path: Path, picture: UInt8) -> None:
    marks = strokes(CROSS, *BORDERS, (128, (20, 120), (60, 120)))
    alpha = np.where(marks.marked, 255, 0).astype(np.uint8)
    path = tmp_path / "strokes.png"
    cv2.imwrite(str(path), np.dstack([marks.levels] * 3 + [alpha]))
    found = read_strokes(path, max_pixels=10**6)
    np.testing.assert_array_equal(found.marked, marks.marked)
    np.testing.assert_array_equal(found.levels[found.marked], marks.levels[marks.marked])


def test_strokes_in_colours_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[5:9, 5:9] = (0, 0, 255, 255)
    cv2.imwrite(str(tmp_path / "red.png"), pixels)
    with pytest.raises(InputError, match="strokes in colours"):
        read_strokes(tmp_path / "red.png", max_pixels=1000)


def test_a_file_without_transparency_holds_no_strokes(tmp_path: Path) -> None:
    path = tmp_path / "strokes.png"
    cv2.imwrite(str(path), np.full((4, 4, 4), 255, np.uint8))
    with pytest.raises(InputError, match="no transparent pixel"):
        read_strokes(path, max_pixels=10**6)


@pytest.mark.parametrize("scale", [1, 3])
def test_the_band_grows_with_the_object(scale: int) -> None:
    mask = disc(RADIUS * scale, HEIGHT * scale, WIDTH * scale)
    assert chosen_band(mask) == pytest.approx(0.026 * RADIUS * scale * np.pi**0.5, abs=1)


def test_soft_levels_stay_unknown_wherever_they_are() -> None:
    mask = disc()
    mask[100:110, 155:165] = 200  # a translucent place inside
    mask[5:10, 5:10] = 40  # and one outside
    trimap = from_soft_mask(mask, inside=4, outside=4)
    assert (trimap[100:110, 155:165] == 128).all()
    assert (trimap[5:10, 5:10] == 128).all()
    assert trimap[120, 160] == 255
    assert trimap[120, 5] == 0


@pytest.mark.parametrize("level", [0, 255])
def test_a_mask_without_a_border_is_refused(level: int) -> None:
    with pytest.raises(InputError, match="cannot make a trimap"):
        from_soft_mask(np.full((20, 20), level, np.uint8))


def test_a_band_is_widened_and_narrowed() -> None:
    trimap = from_soft_mask(disc(), inside=6, outside=6)
    assert np.count_nonzero(resized_band(trimap, 5) == 128) > np.count_nonzero(trimap == 128)
    narrow = resized_band(trimap, -3)
    assert 0 < np.count_nonzero(narrow == 128) < np.count_nonzero(trimap == 128)
    assert (trimap[narrow == 128] == 128).all()
    none = resized_band(trimap, -40)
    assert not (none == 128).any()
    assert (none == 255).sum() == pytest.approx((disc() > 0).sum(), rel=0.05)
    np.testing.assert_array_equal(resized_band(trimap, 0), trimap)


def test_a_region_loses_a_margin_of_this_width() -> None:
    """An independent count: a pixel stays if no pixel within the width is outside."""
    region = np.random.default_rng(0).random((30, 40)) < 0.97
    rows, columns = np.nonzero(~region)
    squares = (np.arange(30)[:, None, None] - rows) ** 2 + (np.arange(40)[None, :, None] - columns) ** 2
    for width in (0, 1, 3, 5):
        np.testing.assert_array_equal(shrunk(region, width), squares.min(axis=-1) > width**2)
    whole = np.ones((8, 9), np.bool_)
    assert shrunk(whole, 20).all(), "the frame has no margin"
    assert np.isinf(distance(~whole)).all()


def test_an_unknown_band_narrows_where_the_network_is_sure() -> None:
    trimap = from_soft_mask(disc(), inside=20, outside=20)
    # The network finds a border of 4 pixels, except in a part of the lower half, where it finds nothing.
    alpha = np.clip((RADIUS + 2 - np.hypot(*np.ogrid[-120:120, -160:160])) / 4, 0, 1).astype(np.float32)
    doubtful = np.s_[170:, 140:180]
    alpha[doubtful] = 0.5
    kept = np.zeros(trimap.shape, np.bool_)
    kept[40:44, 158:162] = True
    narrow = narrowed(trimap, alpha, kept)
    upper = np.s_[:120]
    assert 0 < (narrow[upper] == 128).sum() < (trimap[upper] == 128).sum() / 2
    assert (narrow[(alpha > 0.1) & (alpha < 0.9) & (trimap == 128)] == 128).all()
    assert (disc()[narrow == 255] == 255).all()
    assert (disc()[narrow == 0] == 0).all()
    np.testing.assert_array_equal(narrow[trimap != 128], trimap[trimap != 128])
    np.testing.assert_array_equal(narrow[doubtful], trimap[doubtful])
    np.testing.assert_array_equal(narrow[kept], trimap[kept])
    # Without certainty nothing changes.
    np.testing.assert_array_equal(narrowed(trimap, np.full_like(alpha, 0.5), kept), trimap)


@pytest.mark.parametrize("marks", [Strokes.none(HEIGHT, WIDTH), strokes(CROSS, *BORDERS)])
def test_a_child_process_makes_the_same_trimap(picture: UInt8, marks: Strokes) -> None:
    checks: list[int] = []
    box = None if marks.marked.any() else Box(70, 30, 180, 180)
    apart = propose(picture, marks, box, check=lambda: checks.append(len(checks)))
    np.testing.assert_array_equal(apart, propose(picture, marks, box))
    assert checks


def test_a_child_process_reports_errors() -> None:
    given = np.zeros((60, 8000, 3), np.uint8), Strokes.none(60, 8000), Box(11, 11, 2, 2)
    with pytest.raises(InputError) as here:
        propose(*given)
    with pytest.raises(InputError) as apart:
        propose(*given, check=lambda: None)
    assert str(apart.value) == str(here.value)


def test_noise_that_takes_minutes_is_ended_at_once() -> None:
    """OpenCV cuts random pixels for minutes; its process ends with the error of the check."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    marks = Strokes.none(1024, 1024)
    marks.levels[400:600, 400:600], marks.marked[400:600, 400:600] = 255, True
    marks.marked[:40] = True
    started = time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 6:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        propose(noise, marks, check=check)
    assert time.monotonic() - started < 60
    commands = [child.cmdline() for child in psutil.Process().children()]
    assert not [command for command in commands if "dim_runtime.trimaps.grabcut_process" in command]


def test_a_networks_mask_starts_grabcut(picture: UInt8) -> None:
    # A network that is sure of one half of the object, and hardly notices the other one.
    mask = np.where(disc() > 0, 40, 0).astype(np.uint8)
    mask[:, : WIDTH // 2][disc()[:, : WIDTH // 2] > 0] = 255
    box = Box(80, 40, 160, 160)
    require_disc(propose(picture, Strokes.none(HEIGHT, WIDTH), box, mask))
    # A box that holds the whole image leaves no background to start from; the mask does.
    require_disc(propose(picture, Strokes.none(HEIGHT, WIDTH), Box(0, 0, WIDTH, HEIGHT), mask))


@pytest.mark.parametrize(("level", "known"), [(255, 255), (240, 0)])
def test_a_hole_is_filled_if_the_network_is_sure_of_it(picture: UInt8, level: int, known: int) -> None:
    """An eye in the background's colour: of 255 the network is sure, and gaps between locks have 240."""
    image, mask, eye = picture.copy(), disc(), disc(20) > 0
    image[eye] = picture[:40, :40].reshape(-1, 3)[: eye.sum()]
    mask[eye] = level
    trimap = propose(image, Strokes.none(HEIGHT, WIDTH), None, mask)
    assert trimap[HEIGHT // 2, WIDTH // 2] == known


@pytest.mark.parametrize(("level", "message"), [(0, "no object\\n"), (255, "nothing but the object")])
def test_a_networks_mask_without_a_border_is_an_error(picture: UInt8, level: int, message: str) -> None:
    mask = np.full((HEIGHT, WIDTH), level, np.uint8)
    with pytest.raises(InputError, match=message):
        propose(picture, Strokes.none(HEIGHT, WIDTH), Box(0, 0, WIDTH, HEIGHT), mask)
