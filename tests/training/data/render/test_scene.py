"""Scenes as plain data: pure functions of the seed, finite, and recorded; no Blender."""

from __future__ import annotations

import numpy as np
import pytest

from dim.errors import InputError
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Scene, Strands
from dim_training.data.render.staging import Staged, stage
from dim_training.data.render.strands import along, bent, clump, ply, resample
from dim_training.data.render.subjects import SUBJECTS
from dim_training.data.render.surfaces import Ellipsoid
from dim_training.data.render.vectors import Noise, rotation


def _arrays(staged: Staged) -> list[np.ndarray]:
    arrays = []
    for part in staged.scene.parts:
        if isinstance(part, Strands):
            arrays += [part.points, np.asarray(part.radius), np.asarray(part.tint)]
        else:
            arrays += [
                part.vertices,
                part.faces,
                np.asarray(part.tint),
                np.asarray(part.opacity is not None and part.opacity),
            ]
    return arrays


@pytest.fixture(scope="module", params=sorted(SUBJECTS))
def staged(request: pytest.FixtureRequest) -> Staged:
    return stage(20_007, request.param)


def test_every_subject_is_finite_and_fits_its_material(staged: Staged) -> None:
    assert staged.scene.parts
    for part in staged.scene.parts:
        points = part.points if isinstance(part, Strands) else part.vertices
        assert np.isfinite(points).all()
        assert np.isfinite(part.tint).all()
        if isinstance(part, Strands):
            assert np.broadcast_shapes(np.shape(part.radius), points.shape[:2]) == points.shape[:2]
            assert np.broadcast_shapes(np.shape(part.tint), points.shape) == points.shape
            assert (np.asarray(part.radius) > 0).all()
            continue
        assert part.faces.min() >= 0
        assert part.faces.max() < len(points)
        assert np.broadcast_shapes(np.shape(part.tint), points.shape) == points.shape
        if part.opacity is not None:
            assert part.opacity.shape == (len(points),)
            assert 0 <= part.opacity.min() <= part.opacity.max() <= 1


def test_the_camera_sees_the_subject(staged: Staged) -> None:
    centre, reach = staged.scene.bounds()
    camera = staged.camera
    distance = np.linalg.norm(camera.position - centre)
    assert reach > 0
    assert distance * np.tan(camera.angle / 2) == pytest.approx(reach / staged.record["camera"]["fill"])


@pytest.mark.parametrize("subject", ["person", "net", "smoke"])
def test_the_same_seed_gives_the_same_scene(subject: str) -> None:
    first, second, other = (stage(seed, subject) for seed in (20_001, 20_001, 20_002))
    assert first.record == second.record
    for one, two in zip(_arrays(first), _arrays(second), strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.record != other.record


def test_a_subject_by_name_keeps_the_camera_of_the_seed() -> None:
    assert stage(20_001, "net").record["light"] == stage(20_001, "web").record["light"]
    with pytest.raises(InputError, match="'hat'"):
        stage(20_001, "hat")


def test_seeds_reach_every_subject() -> None:
    shares = {name: share for name, (_, share) in SUBJECTS.items()}
    drawn = [Draws(seed, 0).choice("subject", shares) for seed in range(3000)]
    assert set(drawn) == set(SUBJECTS)
    assert drawn.count("person") / 3000 == pytest.approx(6 / sum(shares.values()), abs=0.03)


def test_draws_are_recorded_as_they_are_used() -> None:
    draws = Draws(1, 2)
    values = {
        "a": draws.uniform("a", 2, 3),
        "b": draws.log_uniform("b", 0.001, 0.01),
        "c": draws.integer("c", 1, 2),
        "d": draws.chance("d", 0.5),
        "e": draws.choice("e", ("x", "y")),
    }
    assert draws.record == values
    assert 2 <= values["a"] <= 3
    assert 0.001 <= values["b"] <= 0.01


def test_opaque_scenes_are_recognised() -> None:
    assert stage(20_001, "person").scene.is_opaque
    assert not stage(20_001, "glass").scene.is_opaque
    assert not stage(20_001, "smoke").scene.is_opaque
    assert Scene().is_opaque


def test_strands_bend_ply_and_clump() -> None:
    rng = np.random.default_rng(0)
    starts, ways = np.zeros((50, 3)), np.tile((0, 0, 1.0), (50, 1))
    starts[:, 0] = np.linspace(-1, 1, 50)
    straight = bent(starts, ways, np.full(50, 2.0), np.zeros((50, 3)), 9)
    np.testing.assert_allclose(straight[:, -1, 2], 2)
    tight = clump(rng, straight, each=10, strength=1.0)
    np.testing.assert_allclose(tight[:, 0], straight[:, 0])
    assert np.unique(tight[:, -1, 0].round(1)).size < np.unique(straight[:, -1, 0].round(1)).size
    line = np.linspace((0, 0, 0), (0, 0, 3.0), 40)
    wound = ply(line, 3, 0.1, 5)
    np.testing.assert_allclose(np.hypot(wound[..., 0], wound[..., 1]), 0.1)
    even = resample(np.array([(0, 0, 0), (0.1, 0, 0), (1, 0, 0)]), 11)
    np.testing.assert_allclose(even[:, 0], np.linspace(0, 1, 11))
    assert along(3).ravel().tolist() == [0, 0.5, 1]


def test_an_ellipsoid_keeps_points_outside() -> None:
    rng = np.random.default_rng(0)
    solid = Ellipsoid(np.array([0.3, 0, 0]), np.array([1, 0.5, 0.2]), rotation(np.array([0, 0, 1.0]), 0.6))
    roots, normals = solid.roots(rng, 500)
    np.testing.assert_allclose(solid.depth(roots), 1)
    assert (solid.depth(roots + 0.01 * normals) > 1).all()
    pushed = solid.pushed_out(solid.centre + 0.3 * (roots - solid.centre), 0.1)
    np.testing.assert_allclose(solid.depth(pushed), 1.1)
    np.testing.assert_array_equal(solid.pushed_out(roots + 5, 0.1), roots + 5)
    assert Ellipsoid(np.zeros(3), np.ones(3)).area == pytest.approx(4 * np.pi)


def test_noise_is_smooth() -> None:
    noise = Noise(np.random.default_rng(0), 0.5)
    points = np.linspace((0, 0, 0), (3, 0, 0), 3000)
    values = noise(points)[:, 0]
    assert np.abs(np.diff(values)).max() < 0.02
    assert values.std() > 0.2
