"""From a seed to a scene: the subject, the light on it and the camera before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dim.errors import InputError
from dim_training.data.render.draws import Draws, Value
from dim_training.data.render.scene import Camera, Lamp, Light, Scene
from dim_training.data.render.subjects import SUBJECTS
from dim_training.data.render.vectors import Floats, unit

ENVIRONMENTS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")
"""Panoramas that Blender ships; by Greg Zaal, Poly Haven, CC0."""

_CHOICE, _SUBJECT, _CAMERA, _LIGHT, _LOOK = range(5)


@dataclass(frozen=True)
class Staged:
    """A scene that is ready to render.

    Attributes:
        seed: from which everything was drawn.
        subject: name in ``SUBJECTS``.
        scene, camera, light: what is rendered.
        exposure: brightness of the subject's light parts in the picture, 0-1 of sRGB's linear range.
        filter_width: width of the pixel filter, pixels.
        record: parameters by section and name.
        is_background: the picture has no alpha: light that meets no part comes from the environment.
    """

    seed: int
    subject: str
    scene: Scene
    camera: Camera
    light: Light
    exposure: float
    filter_width: float
    record: dict[str, dict[str, Value]]
    is_background: bool = False


def stage(seed: int, subject: str | None = None) -> Staged:
    """Return the scene of a seed; the same seed gives the same scene on every machine.

    Args:
        subject: a name in ``SUBJECTS`` to render instead of the seed's own.

    Raises:
        InputError: there is no such subject.
    """
    require_subject(subject)
    own = Draws(seed, _CHOICE).choice("subject", {name: share for name, (_, share) in SUBJECTS.items()})
    name = subject or own
    sections = {
        "subject": Draws(seed, _SUBJECT),
        "camera": Draws(seed, _CAMERA),
        "light": Draws(seed, _LIGHT),
        "look": Draws(seed, _LOOK),
    }
    scene = Scene()
    SUBJECTS[name][0](scene, sections["subject"])
    look = sections["look"]
    return Staged(
        seed=seed,
        subject=name,
        scene=scene,
        camera=_camera(scene, sections["camera"]),
        light=draw_light(sections["light"]),
        exposure=look.uniform("exposure", 0.35, 0.9),
        filter_width=look.uniform("filter width", 1.0, 1.8),
        record={section: draws.record for section, draws in sections.items()},
    )


def require_subject(name: str | None) -> None:
    """Raise InputError for an unknown subject; None is any."""
    if name is not None and name not in SUBJECTS:
        raise InputError("cannot render this subject", got=repr(name), expected=", ".join(SUBJECTS))


def _camera(scene: Scene, draws: Draws) -> Camera:
    """Place the camera, choose the plane in focus, and move the subject during the exposure now and then."""
    centre, reach = scene.bounds()
    rng = draws.rng
    distance = draws.uniform("distance", 3.5, 9.0)
    tilt, turn = draws.uniform("tilt", -0.3, 0.35), draws.uniform("turn", -0.5, 0.5)
    way = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    fill = draws.uniform("fill", 0.75, 1.1)
    half_width = reach / fill
    shift, spin = np.zeros(3), 0.0
    if draws.chance("moves", 0.15):
        # Shares of the image's width: 0.002 is one pixel of 480.
        length = 2 * half_width * draws.log_uniform("blur length", 0.003, 0.025)
        shift = length * unit(rng.normal(size=3) * (1, 0.2, 1))
        spin = draws.uniform("blur turn", -0.02, 0.02) * float(rng.random() < 0.4)
    focus, aperture = _focus(draws, distance, reach, half_width)
    return Camera(
        position=centre + distance * way,
        target=centre + rng.normal(0, 0.05, 3) * reach,
        angle=2 * float(np.arctan(half_width / distance)),
        focus=focus,
        aperture=aperture,
        shift=shift,
        turn=spin,
    )


def _focus(draws: Draws, distance: float, reach: float, half_width: float) -> tuple[float, float]:
    """Return the distance in focus and the aperture, chosen by the blur that they give.

    A point at distance d is blurred to a disc of ``aperture · |d − focus| / d`` at the plane in focus.
    """
    kind = draws.choice("focus", {"deep": 6.0, "shallow": 3.0, "missed": 1.2})
    if kind == "deep":
        return distance, 0.0
    # "shallow" focuses within the subject; "missed" on something before or behind it: all borders are soft.
    low, high = (-0.6, 0.4) if kind == "shallow" else (0.8, 1.6)
    side = draws.rng.choice([-1.0, 1.0]) if kind == "missed" else 1.0
    offset = float(side * draws.uniform("focus offset", low, high) * reach)
    focus = max(0.5 * distance, distance + offset)
    blur = 2 * half_width * draws.log_uniform("blur disc", 0.003, 0.014)
    far = reach if kind == "shallow" else max(abs(distance - focus), 0.1)
    return focus, blur * distance / far


def draw_light(draws: Draws) -> Light:
    """Draw the light of a scene: an environment or a sky of two colours, and lamps."""
    rng = draws.rng
    sky = draws.chance("plain sky", 0.15)
    lamps = tuple(
        _lamp(rng.normal(size=3), draws, number) for number in range(max(0, draws.integer("lamps", -1, 2)))
    )
    tint = 1 - rng.uniform(0, 0.25, 3)
    return Light(
        environment=None if sky else draws.choice("environment", ENVIRONMENTS),
        turn=draws.uniform("turn", 0, 2 * np.pi),
        strength=draws.uniform("strength", 0.6, 1.2),
        sky=rng.uniform(0.5, 1.2) * tint,
        ground=rng.uniform(0.05, 0.5) * tint[::-1],
        lamps=lamps,
    )


def _lamp(way: Floats, draws: Draws, number: int) -> Lamp:
    rng = draws.rng
    place = unit(way * (1, 1, 0.7) + (0, 0, 0.5)) * 4.5
    power, size = draws.log_uniform(f"power {number}", 80, 700), draws.log_uniform(f"size {number}", 0.3, 4)
    warmth = rng.uniform(0, 0.5)
    return Lamp(
        place,
        size,
        power,
        1 - warmth * np.array([0.0, 0.35, 0.8])
        if rng.random() < 0.7
        else 1 - warmth * np.array([0.6, 0.25, 0.0]),
    )
