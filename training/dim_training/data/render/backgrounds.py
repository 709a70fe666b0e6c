"""Backgrounds: opaque scenes of grounds, walls, panels and many things, in front of an environment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dim.arrays import UInt8
from dim_training.data.render.draws import Draws
from dim_training.data.render.pictures import draw_picture
from dim_training.data.render.scene import Camera, Part, Plain, Scene, Strands, Surface
from dim_training.data.render.staging import Staged, draw_light
from dim_training.data.render.subjects import SUBJECTS
from dim_training.data.render.subjects.objects import finish, painted
from dim_training.data.render.surfaces import Ellipsoid
from dim_training.data.render.vectors import UP, Floats, random_rotation, rotation

SUBJECT = "background"
"""Stands in the index and in file names where foregrounds have their subject."""

BOX, BALL = "box", "ball"
THINGS = {
    BOX: 6.0, BALL: 2.0, "turned": 3.0, "twig": 2.0, "large_leaf": 1.5, "fern": 1.0, "flower": 1.5,
    "grass": 0.7, "basket": 1.0, "wheel": 1.0, "springs": 1.0, "frayed_rope": 0.5, "net": 0.5, "animal": 0.3,
    "person": 0.3,
}  # fmt: skip
"""Things that stand around, and how often each is drawn."""

_ROOM, _THINGS, _VIEW, _LIGHT, _LOOK = range(100, 105)
_FIRST_THING = 1000
"""Sections of the draws; those of foregrounds are below 100."""

FAR = 40.0
"""Half the width of grounds, and the distance where they end, units."""


def stage_background(seed: int) -> Staged:
    """Return the background of a seed; the same seed gives the same scene on every machine."""
    sections = {
        "room": Draws(seed, _ROOM),
        "things": Draws(seed, _THINGS),
        "view": Draws(seed, _VIEW),
        "light": Draws(seed, _LIGHT),
        "look": Draws(seed, _LOOK),
    }
    scene, look = Scene(bounces=2), sections["look"]
    depth = _add_room(scene, sections["room"])
    camera = _camera(sections["view"], depth)
    _add_things(scene, sections["things"], camera, depth, seed)
    return Staged(
        seed=seed,
        subject=SUBJECT,
        scene=scene,
        camera=camera,
        light=draw_light(sections["light"]),
        exposure=look.uniform("exposure", 0.3, 0.95),
        filter_width=look.uniform("filter width", 1.0, 1.8),
        record={section: draws.record for section, draws in sections.items()},
        is_background=True,
    )


def _add_room(scene: Scene, draws: Draws) -> float:
    """Add ground, walls and panels; return the distance of the farthest things."""
    rng, depth = draws.rng, draws.log_uniform("depth", 3.5, 16)
    if draws.chance("ground", 0.85):
        corner, across, away = np.array([-FAR, -1, 0]), np.array([2 * FAR, 0, 0]), np.array([0, FAR, 0])
        scene.add(_sheet(draws, "ground picture", corner, across, away))
    if draws.chance("wall", 0.6):
        corner, across = np.array([-FAR, depth + 0.5, -0.5]), np.array([2 * FAR, 0, 0])
        scene.add(_sheet(draws, "wall picture", corner, across, draws.uniform("height", 1, 8) * UP))
    if draws.chance("side wall", 0.3):
        beside = rng.choice([-1.0, 1.0]) * draws.uniform("side", 1.5, 4)
        corner, along = np.array([beside, -1, -0.5]), np.array([0, depth + 1.5, 0])
        scene.add(_sheet(draws, "side picture", corner, along, 4 * UP))
    for number in range(draws.integer("panels", 0, 7)):
        scene.add(_panel(draws, f"panel {number}", depth))
    return depth


def _panel(draws: Draws, name: str, depth: float) -> Surface:
    """Return a picture that hangs or stands somewhere: a poster, a screen, a curtain."""
    rng = draws.rng
    width, height = np.exp(rng.uniform(np.log(0.3), np.log(2.5), 2)) * (0.4 + depth / 10)
    middle = np.array([rng.normal(0, 0.35 * depth), rng.uniform(0.5, 1) * depth, rng.uniform(0, 2.5)])
    turn = random_rotation(rng, 0.6)
    across, up = turn @ np.array([width, 0, 0]), turn @ (height * UP)
    return _sheet(draws, name, middle - (across + up) / 2, across, up, repeat=False)


def _sheet(
    draws: Draws, name: str, corner: Floats, across: Floats, up: Floats, *, repeat: bool = True
) -> Surface:
    """Return a parallelogram with a picture, once or repeated every few units."""
    vertices = np.stack([corner, corner + across, corner + across + up, corner + up])
    places = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    picture = draw_picture(draws, name)
    if repeat:
        lengths = np.array([np.linalg.norm(across), np.linalg.norm(up)])
        places *= lengths / draws.log_uniform(f"{name} width", 1.2, 7)
    return Surface(
        vertices,
        np.array([[0, 1, 2, 3]]),
        np.ones(3),
        Plain(float(draws.rng.uniform(0.3, 1))),
        smooth=False,
        picture=picture,
        places=places,
    )


def _camera(draws: Draws, depth: float) -> Camera:
    """Place the camera above the origin; focus anywhere, or on everything."""
    rng = draws.rng
    position = np.array([0, 0, draws.uniform("height", 0.4, 2.2)])
    target = np.array([rng.normal(0, 0.1 * depth), depth, draws.uniform("target height", -0.2, 0.3 * depth)])
    focus = draws.uniform("focus", 0.3, 1.0) * depth
    blur = draws.log_uniform("blur", 0.003, 0.03) if draws.chance("shallow", 0.35) else 0.0
    return Camera(position, target, draws.log_uniform("angle", 0.5, 1.2), focus, aperture=blur * focus)


def _add_things(scene: Scene, draws: Draws, camera: Camera, depth: float, seed: int) -> None:
    rng = draws.rng
    picture = draw_picture(draws, "box picture")
    for number in range(draws.integer("things", 3, 12)):
        name = draws.choice(f"thing {number}", THINGS)
        distance = float(rng.uniform(0.3, 1.0)) * depth
        across = float(rng.uniform(-1, 1)) * distance * np.tan(camera.angle / 2)
        size = float(np.exp(rng.uniform(np.log(0.08), np.log(0.35)))) * distance
        height = 0.0 if rng.random() < 0.75 else float(rng.uniform(0, 0.5)) * distance
        thing = _thing(name, Draws(seed, _FIRST_THING + number), picture)
        turn = float(rng.uniform(0, 2 * np.pi))
        scene.add(*_placed(thing, size, np.array([across, distance, height]), turn))


def _thing(name: str, draws: Draws, picture: UInt8) -> Scene:
    """Return one thing alone."""
    thing, rng = Scene(), draws.rng
    if name == BOX:
        thing.add(_box(rng.uniform(0.2, 1, 3), picture, Plain(float(rng.uniform(0.2, 1)))))
    elif name == BALL:
        ball = Ellipsoid(np.zeros(3), rng.uniform(0.4, 1, 3)).surface(np.ones(3), finish(rng))
        thing.add(replace(ball, tint=painted(rng, ball.vertices)))
    else:
        SUBJECTS[name][0](thing, draws)
    return thing


def _box(sides: Floats, picture: UInt8, material: Plain) -> Surface:
    """Return a box around the origin whose faces all show a part of the picture."""
    square = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)], np.float64)
    quarter = np.pi / 2
    turns = [rotation(np.array([1.0, 0, 0]), quarter * k) for k in range(4)]
    turns += [rotation(np.array([0, 1.0, 0]), quarter * k) for k in (1, 3)]
    vertices = np.concatenate([square @ turn.T for turn in turns]) * sides
    places = np.tile((square[:, :2] + 1) / 2, (6, 1)) * (0.5 + 0.5 * sides[0])
    faces = np.arange(24).reshape(6, 4)
    return Surface(vertices, faces, np.ones(3), material, smooth=False, picture=picture, places=places)


def _placed(thing: Scene, size: float, place: Floats, turn: float) -> list[Part]:
    """Return the parts of a thing, half as wide as ``size``, turned around the vertical, above ``place``."""
    centre, reach = thing.bounds()
    scale, turned = size / max(reach, 1e-6), rotation(UP, turn)
    moved = [_moved(part, scale, turned, -scale * centre @ turned.T) for part in thing.parts]
    # It stands on its lowest points, a few stray ones aside.
    heights = np.concatenate([_points(part)[..., 2].ravel() for part in moved])
    lift = place - float(np.percentile(heights, 1)) * UP
    return [_moved(part, 1.0, np.eye(3), lift) for part in moved]


def _points(part: Part) -> Floats:
    return part.points if isinstance(part, Strands) else part.vertices


def _moved(part: Part, scale: float, turn: Floats, shift: Floats) -> Part:
    points = scale * _points(part) @ turn.T + shift
    if isinstance(part, Strands):
        return replace(part, points=points, radius=scale * part.radius)
    return replace(part, vertices=points)
