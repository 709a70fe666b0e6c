"""People: a head with a face, a bust, hair and a beard."""

from __future__ import annotations

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Hair, Plain, Scene, Strands, Surface
from dim_training.data.render.strands import bent, clump, frizz, taper
from dim_training.data.render.subjects.hair import HEAD, STYLES, head_of_hair
from dim_training.data.render.surfaces import Ellipsoid, ball_points, grid
from dim_training.data.render.vectors import UP, Floats, directions, rotation, scalar_noise, unit

BUST_HEIGHTS = (-2.1, -1.2, -1.0, -0.87, -0.76, -0.66, -0.5, -0.2)
BUST_WIDTHS = (0.78, 0.84, 0.8, 0.66, 0.36, 0.2, 0.165, 0.17)
BUST_DEPTHS = (0.4, 0.38, 0.36, 0.3, 0.23, 0.18, 0.165, 0.17)
"""Half axes of the bust's cross-sections, from the chest to the top of the neck."""

FEATURES = np.array(
    [
        # x, z: place; x, z: width; height. In units of the head's half axes.
        (0.0, 0.02, 0.075, 0.17, 0.055),  # bridge of the nose
        (0.0, -0.17, 0.085, 0.065, 0.13),  # its tip
        (-0.3, 0.21, 0.2, 0.06, 0.025),  # brows
        (0.3, 0.21, 0.2, 0.06, 0.025),
        (-0.36, 0.05, 0.14, 0.09, -0.06),  # eye sockets
        (0.36, 0.05, 0.14, 0.09, -0.06),
        (-0.5, -0.2, 0.2, 0.18, 0.03),  # cheeks
        (0.5, -0.2, 0.2, 0.18, 0.03),
        (0.0, -0.42, 0.17, 0.03, 0.04),  # lips
        (0.0, -0.5, 0.14, 0.035, 0.045),
        (0.0, -0.8, 0.22, 0.14, 0.06),  # chin
    ]
)
LIPS = FEATURES[8:10]
EYES = (0.36, 0.05)


def person(scene: Scene, draws: Draws) -> None:
    """Add a head and shoulders with hair of one of :data:`STYLES`."""
    rng = draws.rng
    turn = rotation(
        UP, draws.uniform("facing", *((-np.pi, np.pi) if draws.chance("turned", 0.4) else (-0.6, 0.6)))
    )
    style_name = draws.choice("style", {name: share for name, (_, share) in STYLES.items()})
    colour, skin = colours.hair_colour(draws), colours.skin_colour(draws)
    parts = [*_face(draws, skin, colour), *_bust(draws, skin)]
    parts += head_of_hair(draws, STYLES[style_name][0], colour, wet=style_name == "wet")
    if draws.chance("beard", 0.15):
        parts.append(_beard(draws, colour))
    for part in parts:
        scene.add(_turned(part, turn))
    reach = draws.uniform("reach", 0.62, 1.15)
    scene.centre = np.array([rng.uniform(-0.15, 0.15), 0, -reach * 0.45 + rng.uniform(-0.05, 0.2)])
    scene.reach = reach


def _turned(part: Strands | Surface, turn: Floats) -> Strands | Surface:
    if isinstance(part, Strands):
        return Strands(part.points @ turn.T, part.radius, part.tint, part.material)
    return Surface(part.vertices @ turn.T, part.faces, part.tint, part.material, part.opacity, part.smooth)


def _face(draws: Draws, skin: Floats, hair: Floats) -> list[Strands | Surface]:
    """Return the head, eyes, ears, brows and lashes."""
    rng = draws.rng
    u, v, quads = grid(161, 121)
    ball = ball_points(u, v)
    features = FEATURES * np.exp(rng.normal(0, 0.12, FEATURES.shape))
    vertices = _face_points(ball, features)
    front = np.clip(-ball[:, 1] * 3, 0, 1)
    lips = np.clip(_bumps(ball, LIPS * (1, 1, 1, 1, 0) + (0, 0, 0, 0, 1)), 0, 1) * front
    blush = (
        np.clip(_bumps(ball, np.array([(-0.5, -0.2, 0.2, 0.2, 1.0), (0.5, -0.2, 0.2, 0.2, 1.0)])), 0, 1)
        * front
    )
    mottled = 1 + 0.08 * scalar_noise(rng, 0.12, ball, octaves=3)[:, None]
    tint = skin * mottled * (1 - blush[:, None] * (0.0, 0.15, 0.15))
    tint = tint * (1 - lips[:, None]) + lips[:, None] * skin * draws.rng.uniform(
        (0.7, 0.25, 0.25), (1.0, 0.55, 0.6)
    )
    parts: list[Strands | Surface] = [
        Surface(vertices, quads, tint, Plain(draws.uniform("skin roughness", 0.35, 0.6)))
    ]
    for side in (-1, 1):
        parts += _eye(rng, side, features, hair)
        ear = Ellipsoid(
            np.array([side * 0.375, 0.05, -0.03]), np.array([0.03, 0.085, 0.12]), rotation(UP, side * 0.35)
        )
        parts.append(ear.surface(skin * (1, 0.85, 0.85), Plain(0.5)))
    return parts


def _face_points(ball: Floats, features: Floats) -> Floats:
    """Return the head's surface at points of the unit ball: a tapered jaw, and the features of the face."""
    jaw = 1 - 0.2 * np.clip(-ball[..., 2:], 0, 1) ** 1.5 * np.array([1.0, 0.35, 0.0])
    front = np.clip(-ball[..., 1] * 3, 0, 1)
    raised = 1 + (_bumps(ball, features) * front)[..., None] * (0.6, 1.0, 0.25)
    return np.asarray(ball * HEAD.radii * jaw * raised)


def _bumps(ball: Floats, features: Floats) -> Floats:
    """Return the sum of Gaussian bumps over x and z."""
    x, z, width, height, amount = features.T
    offsets = ((ball[..., 0, None] - x) / width) ** 2 + ((ball[..., 2, None] - z) / height) ** 2
    return np.asarray((amount * np.exp(-0.5 * offsets)).sum(-1))


def _on_face(x: Floats, z: Floats, features: Floats) -> Floats:
    """Return points of the face's front at x and z in units of the half axes."""
    ball = np.stack([x, -np.sqrt(np.maximum(1 - x**2 - z**2, 0.05)), z], -1)
    return _face_points(ball, features)


def _eye(rng: Random, side: int, features: Floats, hair: Floats) -> list[Strands | Surface]:
    """Return an eyeball with an iris, lids' lashes and a brow."""
    x, z = side * EYES[0], EYES[1]
    place = _on_face(np.array(x), np.array(z), features)
    u, v, quads = grid(49, 33)
    ball = ball_points(u, v)
    centre = place + np.array([0, 0.032, 0])
    aim = unit(np.array([rng.normal(0, 0.1), -1, rng.normal(-0.05, 0.1)]))
    off = np.arccos(np.clip(ball @ aim, -1, 1))[:, None]
    iris = np.where(rng.random() < 0.6, (0.08, 0.035, 0.012), (0.1, 0.18, 0.25))
    tint = np.where(off < 0.18, 0.004, np.where(off < 0.48, iris, 0.62))
    eyeball = Surface(centre + ball * 0.052, quads, tint, Plain(0.08))
    t = np.linspace(-1, 1, 40)
    lid = _on_face(x + 0.14 * t, z + 0.075 * (1 - t**2) + 0.01, features) - (0, 0.012, 0)
    lashes = bent(
        lid,
        unit(np.stack([0.25 * t, np.full(40, -1.0), np.full(40, 0.1)], -1)),
        rng.uniform(0.025, 0.045, 40),
        np.tile((0, 0, 0.7), (40, 1)),
        6,
    )
    brow = rng.uniform((-0.2, -0.03), (0.2, 0.03), (220, 2))
    roots = _on_face(x + brow[:, 0], z + 0.16 + brow[:, 1] - 1.3 * brow[:, 0] ** 2, features)
    brows = bent(
        roots,
        unit(np.tile((side * 0.9, -0.35, 0.3), (220, 1)) + rng.normal(0, 0.15, (220, 3))),
        rng.uniform(0.03, 0.06, 220),
        np.tile((0, 0.3, -0.3), (220, 1)),
        5,
    )
    return [
        eyeball,
        Strands(lashes, 0.0015 * taper(6, 0.2), np.full(3, 0.01), Hair()),
        Strands(brows, 0.0016 * taper(5, 0.3), colours.shades(rng, 0.6 * hair, 220, 0.2), Hair()),
    ]


def _bust(draws: Draws, skin: Floats) -> list[Strands | Surface]:
    """Return the neck and the clothed shoulders."""
    rng = draws.rng
    u, v, quads = grid(97, 90)
    height = BUST_HEIGHTS[0] + v * (BUST_HEIGHTS[-1] - BUST_HEIGHTS[0])
    # Averaging neighbours along the height rounds the corners of the profile.
    width, depth = (
        np.mean([np.interp(height + d, BUST_HEIGHTS, sizes) for d in (-0.06, -0.03, 0.0, 0.03, 0.06)], axis=0)
        for sizes in (BUST_WIDTHS, BUST_DEPTHS)
    )
    around = 2 * np.pi * u
    points = np.stack([width * np.cos(around), 0.05 + depth * np.sin(around), height], -1)
    collar = -0.8 - draws.uniform("neckline", 0, 0.25) * np.clip(-np.sin(around), 0, 1) ** 2
    folds = 0.012 * scalar_noise(rng, 0.25, points, octaves=2)[:, None]
    cloth = colours.vivid(rng)
    stripes = np.sin(height * draws.uniform("stripes", 20, 90)) > draws.uniform("stripe share", 0.0, 1.6)
    dyed = np.where(stripes[:, None], colours.vivid(rng), cloth) * (
        1 + 0.1 * scalar_noise(rng, 0.05, points)[:, None]
    )
    covered = (height < collar)[:, None]
    points = points * (1 + np.where(covered, 0.04 + folds, 0) * (1, 1, 0))
    return [
        Surface(
            points, quads, np.where(covered, dyed, skin), Plain(draws.uniform("cloth roughness", 0.5, 0.95))
        )
    ]


def _beard(draws: Draws, colour: Floats) -> Strands:
    """Return short hair on the cheeks, lip and chin."""
    rng = draws.rng
    ball = directions(rng, 40000)
    x, y, z = ball.T
    where = (y < -0.15) & (z < -0.28 - 0.25 * np.exp(-((x / 0.35) ** 2))) & (z > -0.93)
    where |= (y < 0) & (np.abs(x) < 0.3) & (np.abs(z + 0.34) < 0.04)
    roots = _face_points(ball[where], FEATURES)
    count = len(roots)
    way = unit(roots / HEAD.radii + (0, 0, -0.8) + rng.normal(0, 0.25, roots.shape))
    lengths = draws.log_uniform("beard length", 0.02, 0.25) * rng.gamma(6, 1 / 6, count)
    strands = bent(roots, way, lengths, rng.normal(0, 0.3, (count, 3)) - 0.3 * UP, 8)
    strands = frizz(rng, clump(rng, strands, 8, 0.3), 0.006, 1.5)
    return Strands(strands, 0.0012 * taper(8, 0.3), colours.shades(rng, colour, count, 0.25), Hair())
