"""Plants: leafy twigs, leaves with holes, conifers, grasses, ferns and seed heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands, Surface
from dim_training.data.render.strands import along, bent, fuzz, taper
from dim_training.data.render.surfaces import Ellipsoid, grid
from dim_training.data.render.vectors import (
    UP,
    Floats,
    Noise,
    directions,
    normals_of,
    random_rotation,
    scalar_noise,
    tangents_of,
    unit,
)

STEM = np.array([0.12, 0.16, 0.05])
TWIG_POINTS = 16


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


def twig(scene: Scene, draws: Draws) -> None:
    """Add one or several branching twigs with leaves or needles."""
    rng = draws.rng
    for _ in range(draws.integer("twigs", 1, 3)):
        start = np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.1, 0.1), -1.0])
        lines, levels = _branches(
            rng,
            start,
            unit(np.array([rng.normal(0, 0.4), rng.normal(0, 0.3), 1.0])),
            draws.uniform("height", 1.2, 2.0),
        )
        bark = np.array([0.13, 0.085, 0.055]) * rng.uniform(0.4, 2.0)
        thickness = np.array([0.022, 0.011, 0.005])[levels] * rng.uniform(0.6, 1.4)
        scene.add(Strands(lines, thickness[:, None] * taper(TWIG_POINTS, 0.35), bark, Plain(0.8)))
        fine = lines[levels > 0]
        if draws.chance("needles", 0.3):
            _add_needles(scene, draws, fine)
        else:
            _add_leaves_along(scene, draws, fine)


def _branches(
    rng: Random, start: Floats, way: Floats, length: float
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the lines of a twig that branches twice, n × TWIG_POINTS × 3, and the level of each: 0, 1, 2."""
    wander = Noise(rng, 0.4, 3)
    lines: list[Floats] = []
    levels: list[int] = []
    todo = [(start, way, length, 0)]
    while todo:
        place, way, length, level = todo.pop()
        line = [place]
        for _ in range(TWIG_POINTS - 1):
            way = unit(way + 0.15 * wander(line[-1]) + rng.normal(0, 0.05, 3) + 0.02 * UP)
            line.append(line[-1] + way * length / (TWIG_POINTS - 1))
        lines.append(np.stack(line))
        levels.append(level)
        if level < 2:
            for _ in range(int(rng.integers(4, 9))):
                fork = line[int(rng.integers(3, TWIG_POINTS))]
                aside = unit(way + 0.95 * directions(rng, 1)[0] * (1, 0.6, 1))
                todo.append((fork, aside, length * float(rng.uniform(0.25, 0.55)), level + 1))
    return np.stack(lines), np.array(levels)


def _add_needles(scene: Scene, draws: Draws, twigs: Floats) -> None:
    rng = draws.rng
    count = min(30000, len(twigs) * draws.integer("needles per twig", 40, 160))
    owner, place = rng.integers(len(twigs), size=count), rng.integers(1, TWIG_POINTS, count)
    way = unit(tangents_of(twigs)[owner, place] + draws.uniform("spread", 0.5, 1.2) * directions(rng, count))
    lengths = draws.uniform("needle length", 0.05, 0.16) * rng.uniform(0.7, 1.2, count)
    lines = bent(twigs[owner, place], way, lengths, 0.1 * rng.normal(size=(count, 3)), 4)
    scene.add(
        Strands(
            lines,
            draws.log_uniform("needle radius", 0.0015, 0.0035) * taper(4, 0.2),
            colours.leaf_colours(rng, count)[:, None],
            Plain(0.4),
        )
    )


def _add_leaves_along(scene: Scene, draws: Draws, twigs: Floats) -> None:
    rng = draws.rng
    count = min(700, len(twigs) * draws.integer("leaves per twig", 2, 9))
    owner, place = rng.integers(len(twigs), size=count), rng.integers(2, TWIG_POINTS, count)
    way = unit(tangents_of(twigs)[owner, place] + 0.8 * directions(rng, count) - (0, 0, rng.uniform(0, 0.5)))
    sizes = draws.uniform("leaf size", 0.08, 0.24) * rng.uniform(0.5, 1.2, count)
    holes = draws.uniform("eaten", 0.1, 0.5) if draws.chance("holes", 0.35) else 0.0
    add_leaves(scene, draws, twigs[owner, place], way, sizes, holes=holes)


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
    across, flat = _blade_shape(blade, u, v)
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


def _blade_shape(blade: Blade, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Return the offset of the vertices from the midrib, in lengths, and −1 to 1 from margin to margin."""
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
    scene.add(Strands(stems, 0.016 * taper(8, 0.8), STEM, Plain(0.5)))
    for number in range(count):
        _add_large_leaf(scene, draws, roots[number], ways[number], float(sizes[number]))


def _add_large_leaf(scene: Scene, draws: Draws, root: Floats, way: Floats, size: float) -> None:
    rng = draws.rng
    u, v, quads = grid(181, 341)
    kind = draws.choice("damage", ("eaten", "window", "skeleton"))
    blade = Blade(
        rng.uniform(0.4, 0.85), rng.uniform(0.3, 0.5), int(rng.integers(0, 20)), float(rng.uniform(0, 0.25))
    )
    across, flat = _blade_shape(blade, u, v)
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


def fern(scene: Scene, draws: Draws) -> None:
    """Add fronds: leaflets on both sides of side ribs on both sides of a rib."""
    rng = draws.rng
    for _ in range(draws.integer("fronds", 1, 5)):
        lean = directions(rng, 1)[0] * (1, 0.6, 0.2)
        rib = bent(
            np.array([[0, 0, -1.0]]),
            unit(UP + 0.4 * lean)[None],
            np.array([rng.uniform(1.5, 2.2)]),
            (0.5 * lean - rng.uniform(0, 0.4) * UP)[None],
            60,
        )[0]
        scene.add(Strands(rib[None], 0.012 * taper(60, 0.2), STEM, Plain(0.5)))
        tangent = tangents_of(rib)
        facing = unit(directions(rng, 1)[0] * (0.6, 0.6, 0.6) - (0, 1, 0))
        flat = unit(np.cross(tangent, facing))
        pairs = int(rng.integers(14, 32))
        at = np.repeat(np.linspace(9, 58, pairs).astype(int), 2)
        side = np.tile([-1.0, 1.0], pairs)[:, None]
        length = rng.uniform(0.3, 0.6) * np.sin(np.pi * np.linspace(0.1, 0.95, pairs).repeat(2) ** 0.8) + 0.03
        ribs = bent(
            rib[at],
            unit(side * flat[at] + 0.5 * tangent[at] + rng.normal(0, 0.05, (2 * pairs, 3))),
            length,
            0.2 * tangent[at] - 0.1 * UP,
            13,
        )
        scene.add(Strands(ribs, 0.004 * taper(13, 0.3), STEM, Plain(0.5)))
        ways = [
            unit(half * tangent[at][:, None] + 0.6 * tangents_of(ribs)[:, 1:]).reshape(-1, 3)
            for half in (-1, 1)
        ]
        sizes = (length[:, None] / 5.5 * np.linspace(1, 0.35, 12)).ravel()
        add_leaves(
            scene,
            draws,
            np.tile(ribs[:, 1:].reshape(-1, 3), (2, 1)),
            np.concatenate(ways),
            np.tile(sizes, 2),
            facing=np.broadcast_to(facing, (2 * len(sizes), 3)),
        )


def grass(scene: Scene, draws: Draws) -> None:
    """Add tufts of grass, some with ears whose awns are thinner than a pixel."""
    rng = draws.rng
    count = int(draws.log_uniform("blades", 60, 1500))
    spread = draws.uniform("spread", 0.1, 0.7)
    roots = rng.normal(0, spread, (count, 3)) * (1, 0.5, 0) - UP
    lean = rng.normal(0, 0.3, (count, 3)) * (1, 1, 0) + roots * (0.5, 0.5, 0)
    blades = bent(
        roots,
        unit(lean + 1.3 * UP),
        rng.uniform(0.6, 1.9, count),
        0.6 * lean - UP * rng.uniform(0, 0.5, (count, 1)),
        14,
    )
    tint = colours.leaf_colours(rng, count)[:, None] * (0.7 + 0.5 * along(14))
    scene.add(
        Strands(
            blades,
            draws.log_uniform("blade radius", 0.003, 0.012) * taper(14, 0.08, 1.6),
            tint,
            Plain(0.4, translucent=0.3),
        )
    )
    if draws.chance("ears", 0.6):
        chosen = blades[rng.choice(count, min(count, int(rng.integers(8, 60))), replace=False)]
        fibres, _ = fuzz(
            rng, chosen[:, -4:], len(chosen) * int(rng.integers(15, 60)), draws.uniform("awns", 0.06, 0.2), 6
        )
        scene.add(
            Strands(
                fibres,
                draws.log_uniform("awn radius", 0.0008, 0.003) * taper(6, 0.2),
                np.array([0.5, 0.38, 0.18]) * np.exp(rng.normal(0, 0.2, (len(fibres), 1, 1))),
                Plain(0.5),
            )
        )


def seed_heads(scene: Scene, draws: Draws) -> None:
    """Add dandelion clocks and thistles: globes of parachutes on thin stalks."""
    rng = draws.rng
    for _ in range(draws.integer("heads", 1, 3)):
        centre, size = rng.normal(0, 0.5, 3) * (1, 0.4, 0.5) + 0.2 * UP, float(rng.uniform(0.35, 0.6))
        ways = directions(rng, int(rng.integers(50, 160)))
        ways = ways[scalar_noise(rng, 1.0, ways) < rng.uniform(0.2, 1.5)]
        stalks = bent(
            centre + 0.15 * size * ways,
            ways,
            np.full(len(ways), 0.75 * size),
            0.05 * rng.normal(size=ways.shape),
            5,
        )
        hairs = int(rng.integers(14, 30))
        aside = unit(
            directions(rng, len(ways) * hairs) * 0.9 + np.repeat(ways, hairs, 0) * rng.uniform(0.3, 0.9)
        )
        tufts = bent(
            np.repeat(stalks[:, -1], hairs, 0),
            aside,
            size * 0.4 * rng.uniform(0.8, 1.1, len(aside)),
            0.15 * np.repeat(ways, hairs, 0),
            6,
        )
        white = np.full(3, rng.uniform(0.5, 0.9))
        scene.add(
            Strands(stalks, np.array(0.0016), 0.8 * white, Plain(0.6)),
            Strands(
                tufts,
                draws.log_uniform("parachute radius", 0.0006, 0.0016) * taper(6, 0.4),
                white,
                Plain(0.6),
            ),
            Ellipsoid(centre, np.full(3, 0.17 * size)).surface(np.array([0.2, 0.13, 0.07]), Plain(0.9)),
            Strands(
                bent(centre[None], -UP[None], np.array([2.5]), rng.normal(0, 0.1, (1, 3)), 12),
                np.array(0.018),
                STEM * 1.5,
                Plain(0.5),
            ),
        )


def flower(scene: Scene, draws: Draws) -> None:
    """Add flowers: thin petals, stamens on filaments, hairy stems."""
    rng = draws.rng
    for _ in range(draws.integer("flowers", 1, 5)):
        turn, centre = random_rotation(rng, 1.1), rng.normal(0, 0.45, 3) * (1, 0.4, 0.8)
        size, petals = float(rng.uniform(0.3, 0.6)), int(rng.integers(5, 22))
        angle = 2 * np.pi * (np.arange(petals) + rng.normal(0, 0.08, petals)) / petals
        ways = unit(np.stack([np.cos(angle), np.full(petals, -rng.uniform(0.1, 0.9)), np.sin(angle)], -1))
        stamens = int(rng.integers(20, 120))
        filaments = bent(
            np.tile(centre, (stamens, 1)),
            unit(directions(rng, stamens) * 0.7 - (0, 1.0, 0)) @ turn.T,
            size * rng.uniform(0.3, 0.6, stamens),
            0.2 * rng.normal(size=(stamens, 3)),
            8,
        )
        bulge = np.array([[1, 1, 1, 1, 1, 1, 3.5, 3.0]])
        stem = bent(
            centre[None],
            unit(np.array([[0.0, 0.5, -1.0]]) + rng.normal(0, 0.2, (1, 3))),
            np.array([2.2]),
            np.array([[0.0, -0.2, -0.4]]),
            20,
        )
        down, _ = fuzz(rng, stem, 1500, 0.03)
        scene.add(
            Strands(filaments, 0.0022 * bulge, colours.vivid(rng) * 0.5 + (0.4, 0.3, 0.02), Plain(0.5)),
            Strands(stem, np.array(0.014), STEM, Plain(0.5)),
            Strands(down, 0.0008 * taper(5, 0.3), STEM * 2, Plain(0.6)),
        )
        _add_petals(scene, draws, np.tile(centre, (petals, 1)), ways @ turn.T, size, -turn[:, 1])


def _add_petals(scene: Scene, draws: Draws, roots: Floats, ways: Floats, size: float, facing: Floats) -> None:
    rng, count = draws.rng, len(roots)
    u, v, quads = grid(15, 25)
    across, flat = _blade_shape(Blade(rng.uniform(0.25, 0.9), 0.65, 0, 0.0), u, v)
    right = unit(np.cross(ways, facing))
    ripple = (
        rng.normal(0, 0.3, (count, 1)) * v**2
        + 0.25 * np.abs(across)
        + 0.04 * np.sin(13 * u + rng.uniform(0, 6, (count, 1))) * v
    )
    points = roots[:, None] + size * (
        across[None, :, None] * right[:, None] + ripple[..., None] * facing + v[None, :, None] * ways[:, None]
    )
    colour, inner = colours.vivid(rng), colours.vivid(rng)
    fade = np.clip(1.2 - 2 * v, 0, 1)[:, None] + 0.2 * np.abs(np.sin(12 * flat))[:, None]
    tint = np.tile(colour * (1 - 0.5 * fade) + 0.5 * fade * inner, (count, 1)) * np.repeat(
        rng.uniform(0.8, 1.2, (count, 1)), len(u), 0
    )
    faces = (quads[None] + (np.arange(count) * len(u))[:, None, None]).reshape(-1, 4)
    scene.add(Surface(points.reshape(-1, 3), faces, tint, Plain(0.5, translucent=0.5)))
