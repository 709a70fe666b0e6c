"""The description of a scene: geometry with materials, camera and light, as plain data.

Nothing here knows Blender: subjects fill a :class:`Scene`, and ``blender`` builds it.
Lengths are in scene units (a subject is about two units wide), angles in radians, colours linear RGB, 0-1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from dim.arrays import UInt8
from dim_training.data.render.vectors import Floats, Indices


@dataclass(frozen=True)
class Hair:
    """Hair and fur: absorbs light inside the strand, with highlights along it; roughness 0-1."""

    roughness: float = 0.3
    coat: float = 0.0


@dataclass(frozen=True)
class Plain:
    """Opaque matter: skin, thread, wood, metal; ``translucent`` is the share of light that passes."""

    roughness: float = 0.6
    metallic: float = 0.0
    translucent: float = 0.0
    gloss: float = 0.5


@dataclass(frozen=True)
class ThinGlass:
    """A thin clear wall that reflects more at grazing angles.

    It does not refract: light passes straight, so that α·F + (1 − α)·B is exact behind it.

    Attributes:
        density: opacity seen from the front, 0-1.
        falloff: power of the opacity's growth towards grazing angles; 5 is a smooth dielectric.
        body: share of the opaque part that is coloured body instead of reflection, 0-1.
    """

    density: float = 0.05
    falloff: float = 4.0
    roughness: float = 0.02
    body: float = 0.2


Material: TypeAlias = Hair | Plain | ThinGlass


@dataclass(frozen=True)
class Strands:
    """Curves: ``points`` n × k × 3; ``radius`` broadcasts to n × k, ``tint`` to n × k × 3."""

    points: Floats
    radius: Floats
    tint: Floats
    material: Material


@dataclass(frozen=True)
class Surface:
    """A mesh: ``vertices`` n × 3, ``faces`` m × 3 or 4; ``tint`` broadcasts to n × 3.

    Attributes:
        opacity: n values, 0-1, interpolated between vertices; None is opaque.
        picture: sRGB uint8 H × W × 3 that takes the place of ``tint``, repeated in both directions.
        places: n × 2, where in the picture a vertex is: 0-1 from the bottom left to the top right.
    """

    vertices: Floats
    faces: Indices
    tint: Floats
    material: Material
    opacity: Floats | None = None
    smooth: bool = True
    picture: UInt8 | None = None
    places: Floats | None = None


Part: TypeAlias = Strands | Surface


@dataclass(frozen=True)
class Camera:
    """A perspective camera that looks at ``target``.

    Attributes:
        angle: of view, horizontal.
        focus: distance of the plane in focus.
        aperture: diameter of the lens; 0 keeps everything sharp.
        shift: movement of the subject during the exposure, as a vector.
        turn: movement of the subject during the exposure, as an angle around the viewing axis.
    """

    position: Floats
    target: Floats
    angle: float
    focus: float
    aperture: float = 0.0
    shift: Floats = field(default_factory=lambda: np.zeros(3))
    turn: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the subject moves while the shutter is open."""
        return bool(self.turn or np.any(self.shift))


@dataclass(frozen=True)
class Lamp:
    """A square area light at ``position`` that faces the origin; ``power`` in watts."""

    position: Floats
    size: float
    power: float
    colour: Floats


@dataclass(frozen=True)
class Light:
    """Light from all around, and lamps.

    Attributes:
        environment: name of an environment that Blender ships; None is a sky of two colours.
        turn: of the environment around the vertical.
        strength: factor on the surrounding light.
        sky, ground: colours of the sky above and below the horizon, where there is no environment.
    """

    environment: str | None
    turn: float
    strength: float
    sky: Floats
    ground: Floats
    lamps: tuple[Lamp, ...] = ()


@dataclass
class Scene:
    """Everything that is rendered. Subjects add parts and may set how they are looked at.

    Attributes:
        centre, reach: middle and half the width of what the camera shows; None takes all parts.
        round_strands: build strands as tubes; flat ribbons, the default, are cheaper and right for fine hair.
        bounces: reflections that light takes.
    """

    parts: list[Part] = field(default_factory=list)
    centre: Floats | None = None
    reach: float | None = None
    round_strands: bool = False
    bounces: int = 3

    def add(self, *parts: Part) -> None:
        """Add parts to the scene."""
        self.parts.extend(parts)

    @property
    def is_opaque(self) -> bool:
        """True if every point of every part hides what is behind it."""
        return not any(
            isinstance(part.material, ThinGlass) or (isinstance(part, Surface) and part.opacity is not None)
            for part in self.parts
        )

    def bounds(self) -> tuple[Floats, float]:
        """Return the centre of what is shown and half its width; without a set view, of nearly all points."""
        if self.centre is not None and self.reach is not None:
            return self.centre, self.reach
        points = np.concatenate([_some_points(part) for part in self.parts])
        low, high = np.percentile(points, 1, axis=0), np.percentile(points, 99, axis=0)
        return (low + high) / 2, float(np.max((high - low)[[0, 2]])) / 2


def _some_points(part: Part, most: int = 4000) -> Floats:
    points = part.points.reshape(-1, 3) if isinstance(part, Strands) else part.vertices
    return points[:: max(1, len(points) // most)]
