"""Plants: twigs with leaves or needles, ferns, grasses, seed heads and flowers."""

from __future__ import annotations

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands, Surface
from dim_training.data.render.strands import along, bent, fuzz, taper
from dim_training.data.render.subjects.leaves import Blade, add_leaves, blade_shape
from dim_training.data.render.surfaces import Ellipsoid, grid
from dim_training.data.render.vectors import (
    UP,
    Floats,
    Noise,
    directions,
    random_rotation,
    scalar_noise,
    tangents_of,
    unit,
)

TWIG_POINTS = 16


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
        scene.add(Strands(rib[None], 0.012 * taper(60, 0.2), colours.STEM, Plain(0.5)))
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
        scene.add(Strands(ribs, 0.004 * taper(13, 0.3), colours.STEM, Plain(0.5)))
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
                colours.STEM * 1.5,
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
            Strands(stem, np.array(0.014), colours.STEM, Plain(0.5)),
            Strands(down, 0.0008 * taper(5, 0.3), colours.STEM * 2, Plain(0.6)),
        )
        _add_petals(scene, draws, np.tile(centre, (petals, 1)), ways @ turn.T, size, -turn[:, 1])


def _add_petals(scene: Scene, draws: Draws, roots: Floats, ways: Floats, size: float, facing: Floats) -> None:
    rng, count = draws.rng, len(roots)
    u, v, quads = grid(15, 25)
    across, flat = blade_shape(Blade(rng.uniform(0.25, 0.9), 0.65, 0, 0.0), u, v)
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
