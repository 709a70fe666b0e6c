"""The simulated person of examples/measure_trimaps.py: strokes stay in their regions and in the budget."""

from __future__ import annotations

import cv2
import numpy as np
from examples.measure_trimaps import Hand, mistakes, unknown_sad, visible_mistakes

from dim.arrays import UInt8
from dim_runtime.images.pairs import MattingSample
from dim_runtime.trimaps.strokes import Strokes

BRUSH = 3


def rings() -> UInt8:
    """Return the trimap of a disc with a soft border."""
    truth = np.zeros((120, 160), np.uint8)
    cv2.circle(truth, (80, 60), 45, 128, -1)
    cv2.circle(truth, (80, 60), 30, 255, -1)
    return truth


def person(truth: UInt8) -> Hand:
    return Hand(truth, BRUSH, np.random.default_rng(0), Strokes.none(*truth.shape))


def test_strokes_stay_in_their_regions_and_in_the_budget() -> None:
    truth = rings()
    hand = person(truth)
    for level in (255, 0, 128):
        before = hand.marked
        hand.blind(level, 61)
        assert hand.marked - before == 61
    marked = hand.strokes.marked
    assert np.count_nonzero(marked) == hand.marked
    np.testing.assert_array_equal(hand.strokes.levels[marked], truth[marked])


def test_corrections_go_where_the_trimap_is_wrong() -> None:
    truth = rings()
    hand = person(truth)
    trimap = truth.copy()
    trimap[:, 80:] = 0
    hand.correct(mistakes(truth, trimap), 80)
    marked = hand.strokes.marked
    assert 0 < hand.marked <= 80
    assert (truth[marked] != trimap[marked]).all()


def test_mistakes_as_thin_as_a_stroke_are_left() -> None:
    truth = rings()
    trimap = truth.copy()
    trimap[60, 60:100] = 0
    hand = person(truth)
    hand.correct(mistakes(truth, trimap), 80)
    assert hand.marked == 0


def test_only_visible_mistakes_of_a_cutout_are_corrected() -> None:
    truth = np.array([[0, 0, 255, 255, 128, 128, 128]], np.uint8)
    trimap = np.array([[0, 128, 128, 255, 0, 0, 128]], np.uint8)
    alpha = np.array([[0, 0, 255, 255, 100, 0, 255]], np.uint8)
    sample = MattingSample(np.zeros((1, 7, 3), np.uint8), truth, alpha)
    # The second and the fifth are wrong and seen; the sixth is known, but right; the last is unknown already.
    matte = np.array([[0, 0.3, 0.95, 1, 0, 0.05, 0]], np.float32)
    found = visible_mistakes(sample, trimap, matte)
    assert {level: np.flatnonzero(wrong).tolist() for level, wrong in found.items()} == {
        0: [1],
        255: [],
        128: [4],
    }


def test_known_pixels_do_not_count_even_where_the_true_alpha_contradicts_them() -> None:
    truth = np.array([[0, 255, 128, 128]], np.uint8)
    true_alpha = np.array([[90, 200, 100, 100]], np.uint8)
    alpha = np.array([[7, 7, 100, 151]], np.uint8)
    assert unknown_sad(alpha, true_alpha, truth) == 51 / 255 / 1000
