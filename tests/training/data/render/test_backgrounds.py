"""Backgrounds as plain data: functions of the seed, opaque, upright, with pictures; no Blender."""

from __future__ import annotations

import numpy as np
import pytest

from dim_training.data.render.backgrounds import THINGS, stage_background
from dim_training.data.render.develop import develop_background
from dim_training.data.render.draws import Draws
from dim_training.data.render.pictures import PAINTERS, SIDE, draw_picture
from dim_training.data.render.scene import Strands, Surface
from dim_training.data.render.staging import Staged, stage
from dim_training.data.render.subjects import SUBJECTS


@pytest.fixture(scope="module")
def staged() -> Staged:
    return stage_background(20_003)


def test_a_background_is_finite_and_its_pictures_have_places(staged: Staged) -> None:
    pictures = 0
    for part in staged.scene.parts:
        points = part.points if isinstance(part, Strands) else part.vertices
        assert np.isfinite(points).all()
        if isinstance(part, Surface) and part.picture is not None:
            pictures += 1
            assert part.places is not None
            assert part.places.shape == (len(points), 2)
    assert pictures
    assert staged.is_background


def test_the_same_seed_gives_the_same_background(staged: Staged) -> None:
    again, other = stage_background(20_003), stage_background(20_004)
    assert again.record == staged.record != other.record
    for one, two in zip(again.scene.parts, staged.scene.parts, strict=True):
        first, second = (p.points if isinstance(p, Strands) else p.vertices for p in (one, two))
        np.testing.assert_array_equal(first, second)


def test_a_background_shares_no_parameter_with_the_foreground_of_its_seed(staged: Staged) -> None:
    foreground = stage(20_003, "net").record
    assert staged.record["light"]["turn"] != foreground["light"]["turn"]
    assert staged.record["look"]["exposure"] != foreground["look"]["exposure"]


def test_things_stand_on_the_ground_or_above(staged: Staged) -> None:
    sheets = [part for part in staged.scene.parts if isinstance(part, Surface) and len(part.vertices) == 4]
    things = [part for part in staged.scene.parts if not any(part is sheet for sheet in sheets)]
    assert things
    lowest = [np.percentile((p.points if isinstance(p, Strands) else p.vertices)[..., 2], 5) for p in things]
    assert min(lowest) > -0.1


def test_every_thing_exists() -> None:
    assert set(THINGS) - set(SUBJECTS) == {"box", "ball"}


@pytest.mark.parametrize("kind", PAINTERS)
def test_every_picture_shows_something_and_repeats(kind: str) -> None:
    pictures = [PAINTERS[kind][0](np.random.default_rng(3)) for _ in range(2)]
    assert pictures[0].shape == (SIDE, SIDE, 3)
    assert pictures[0].dtype == np.uint8
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].reshape(-1, 3).std(0).max() > 2


def test_the_kind_of_a_picture_is_recorded() -> None:
    draws = Draws(1, 2)
    assert draw_picture(draws, "wall").shape == (SIDE, SIDE, 3)
    assert draws.record["wall"] in PAINTERS


def test_backgrounds_are_developed_to_their_exposure() -> None:
    linear = np.tile(np.linspace(0, 0.02, 20)[:, None, None], (1, 20, 3))
    picture = develop_background(linear, exposure=0.5)
    # Nine tenths of the pixels stay below a linear 0.5, which is 188 in sRGB.
    assert (picture > 188).mean() == pytest.approx(0.1, abs=0.051)
    assert (np.diff(picture[:, 0, 0].astype(int)) >= 0).all()
