"""Leaves: their outline and veins, holes that insects have eaten, and big leaves alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands, Surface
from dim_training.data.render.strands import bent, taper
from dim_training.data.render.surfaces import grid
from dim_training.data.render.vectors import UP, Floats, normals_of, scalar_noise, unit


@dataclass(frozen=True)
class Blade:
    """The outline of a leaf.

    Attributes:
        width: relative to the length.
        widest: where along the length it is widest, 0-1.
        teeth: of the margin, on each side; 0 is smooth.
        lobes: depth of the cuts between lobes, 0-1.
    """

    width: float
    widest: float
    teeth: int
    lobes: float


def add_leaves(
    scene: Scene,
    draws: Draws,
    roots: Floats,
    ways: Floats,
    sizes: Floats,
    *,
    holes: float = 0.0,
    facing: Floats | None = None,
) -> None:
    """Add curved leaves with veins.

    Args:
        roots: count × 3, where the blades begin.
        ways: count × 3, unit vectors along the midribs.
        sizes: of count; lengths of the blades, scene units.
        holes: share of the blade that insects have eaten, 0-1.
        facing: count × 3, where the upper sides look; None turns each leaf at random.
    """
    rng, count = draws.rng, len(roots)
    fine = holes > 0 or count < 60
    columns, rows = (15, 33) if fine else (5, 11)
    blade = Blade(
        draws.uniform("leaf width", 0.2, 0.6),
        draws.uniform("widest", 0.3, 0.6),
        draws.integer("teeth", 0, 12) if fine else 0,
        draws.uniform("lobes", 0, 0.5) if fine else 0.0,
    )
    u, v, quads = grid(columns, rows)
    across, flat = blade_shape(blade, u, v)
    side, up = normals_of(ways)
    roll = rng.normal(0, 0.6, (count, 1))
    right = np.cos(roll) * side + np.sin(roll) * up if facing is None else unit(np.cross(ways, facing))
    above = np.cross(right, ways)
    cup, droop = rng.normal(0.25, 0.3, (count, 1)), rng.normal(0.15, 0.3, (count, 1))
    height = cup * np.abs(across) + droop * v**2 + 0.02 * np.sin(9 * v + 5 * u)
    place = (
        across[None, :, None] * right[:, None]
        + height[..., None] * above[:, None]
        + v[None, :, None] * ways[:, None]
    )
    vertices = roots[:, None] + sizes[:, None, None] * place
    vein = np.exp(-((np.abs(flat) / 0.07) ** 2)) + 0.4 * np.exp(
        -((np.sin(14 * (v - 0.5 * np.abs(flat))) / 0.25) ** 2)
    )
    tint = colours.leaf_colours(rng, count)[:, None] * (1 + 0.5 * vein[None, :, None])
    spots = scalar_noise(rng, 0.05, vertices / sizes.mean() * 0.15)
    tint = tint * (1 - np.clip(spots - 0.7, 0, 0.8)[..., None] * (0.2, 0.6, 0.6))
    opacity = _eaten(rng, vertices, sizes, vein, holes).ravel() if holes > 0 else None
    faces = (quads[None] + (np.arange(count) * len(u))[:, None, None]).reshape(-1, 4)
    material = Plain(
        draws.uniform("leaf roughness", 0.25, 0.6), translucent=draws.uniform("leaf translucency", 0.2, 0.5)
    )
    scene.add(Surface(vertices.reshape(-1, 3), faces, tint.reshape(-1, 3), material, opacity))


def blade_shape(blade: Blade, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Return the offset of the vertices from the midrib, in lengths, and −1 to 1 from margin to margin.

    Args:
        u, v: of n; places across and along the blade, 0-1.
    """
    flat = 2 * u - 1
    power = np.log(0.5) / np.log(blade.widest)
    outline = np.sin(np.pi * v**power) ** 0.8
    margin = 1 - 0.12 * (blade.teeth > 0) * ((v * blade.teeth) % 1.0)
    margin = margin - blade.lobes * (0.5 + 0.5 * np.cos(2 * np.pi * 3.5 * v)) * np.abs(flat)
    return 0.5 * blade.width * outline * margin * flat, flat


def _eaten(rng: Random, vertices: Floats, sizes: Floats, vein: Floats, share: float) -> Floats:
    """Return opacities that are 0 in holes; the veins stay longest."""
    pattern = scalar_noise(rng, 0.16 * float(sizes.mean()), vertices, octaves=2)
    threshold = np.quantile(pattern, 1 - share)
    # The steep ramp takes about one cell of the grid: the hole's border is smooth.
    return np.clip(0.5 - 6 * (pattern - threshold - 0.5 * vein[None]), 0, 1)


def large_leaf(scene: Scene, draws: Draws) -> None:
    """Add one to four big leaves with holes, cuts or only the net of veins left."""
    rng = draws.rng
    count = draws.integer("leaves", 1, 4)
    roots = rng.normal(0, 0.35, (count, 3)) * (1, 0.3, 0.4) - 0.9 * UP
    ways = unit(UP + rng.normal(0, 0.45, (count, 3)) * (1, 0.6, 0.5))
    sizes = rng.uniform(1.2, 1.9, count)
    stems = bent(roots, -ways, np.full(count, 0.6), 0.2 * rng.normal(size=(count, 3)), 8)
    scene.add(Strands(stems, 0.016 * taper(8, 0.8), colours.STEM, Plain(0.5)))
    for number in range(count):
        _add_large_leaf(scene, draws, roots[number], ways[number], float(sizes[number]))


def _add_large_leaf(scene: Scene, draws: Draws, root: Floats, way: Floats, size: float) -> None:
    rng = draws.rng
    u, v, quads = grid(181, 341)
    kind = draws.choice("damage", ("eaten", "window", "skeleton"))
    blade = Blade(
        rng.uniform(0.4, 0.85), rng.uniform(0.3, 0.5), int(rng.integers(0, 20)), float(rng.uniform(0, 0.25))
    )
    across, flat = blade_shape(blade, u, v)
    ribs = int(rng.integers(6, 12))
    phase = (v - 0.45 * np.abs(flat)) * ribs
    rib = np.exp(-(((phase % 1.0 - 0.5) / 0.05) ** 2)) + np.exp(-((flat / 0.03) ** 2))
    sheet = np.stack([flat * 0.5, 0 * v, v], -1)
    if kind == "eaten":
        pattern = scalar_noise(rng, rng.uniform(0.05, 0.25), sheet, octaves=3)
        hole = 9 * (pattern - np.quantile(pattern, rng.uniform(0.6, 0.93)) - 0.25 * rib)
    elif kind == "window":  # oval openings between the ribs
        oval = ((phase % 1.0) / 0.33) ** 2 + ((np.abs(flat) - 0.5) / rng.uniform(0.2, 0.4)) ** 2
        hole = 6 * (1 - oval)
    else:  # a net of veins, as on leaves that have rotted
        cells = 26 * ribs / 9
        net = np.abs(np.sin(np.pi * (flat * cells / 2 + 2 * v))) * np.abs(
            np.sin(np.pi * (phase * 2.2 + np.abs(flat) * 9))
        )
        hole = 9 * (net - 0.25) - 12 * rib
    wave = 0.12 * scalar_noise(rng, 0.4, sheet) + 0.25 * np.abs(across) + rng.normal(0, 0.35) * v**2
    side, above = normals_of(way)
    side, above = (side, above) if rng.random() < 0.5 else (-side, above)
    points = root + size * (across[:, None] * side + wave[:, None] * above + v[:, None] * way)
    tint = (
        colours.leaf_colours(rng, 1)
        * (1 + 0.6 * np.clip(rib, 0, 1)[:, None])
        * np.exp(0.2 * scalar_noise(rng, 0.1, sheet, 3))[:, None]
    )
    scene.add(Surface(points, quads, tint, Plain(0.35, translucent=0.35), np.clip(0.5 - hole, 0, 1)))
