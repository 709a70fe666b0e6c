"""Solid things with holes, gaps and thin parts: turned shapes, cables, baskets, sieves, wheels."""

from __future__ import annotations

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands, Surface
from dim_training.data.render.strands import bent, frizz, ply, resample, taper
from dim_training.data.render.surfaces import Ellipsoid, grid, lathe, smooth_profile
from dim_training.data.render.vectors import (
    UP,
    Floats,
    Noise,
    directions,
    random_rotation,
    rotation,
    scalar_noise,
)


def painted(rng: Random, points: Floats) -> Floats:
    """Return colours of a surface: two tones in a pattern, with dirt."""
    first, second = colours.vivid(rng), colours.vivid(rng)
    pattern = scalar_noise(rng, float(np.exp(rng.uniform(np.log(0.05), np.log(0.8)))), points, octaves=3)
    if rng.random() < 0.4:
        pattern = np.sin(points @ directions(rng, 1)[0] * rng.uniform(8, 60) + pattern)
    share = 1 / (1 + np.exp(-rng.uniform(1, 20) * pattern))[..., None]
    dirt = np.exp(0.15 * scalar_noise(rng, 0.04, points, octaves=2))[..., None]
    return np.asarray(np.clip((first * share + second * (1 - share)) * dirt, 0.004, 0.92))


def finish(rng: Random) -> Plain:
    """Return a material between chalk and polished metal."""
    return Plain(float(rng.uniform(0.08, 0.9)), metallic=float(rng.random() < 0.2))


def turned(scene: Scene, draws: Draws) -> None:
    """Add turned shapes, with cables, wires and thin rods across them."""
    rng = draws.rng
    for _ in range(draws.integer("shapes", 1, 3)):
        vertices, quads = lathe(
            smooth_profile(rng, int(rng.integers(4, 11)), 0.05, rng.uniform(0.3, 0.7)), rng.uniform(0.8, 1.8)
        )
        vertices = vertices @ random_rotation(rng).T + rng.normal(0, 0.3, 3)
        scene.add(
            Surface(vertices, quads, painted(rng, vertices), finish(rng), smooth=bool(rng.random() < 0.8))
        )
    for _ in range(draws.integer("cables", 0, 5)):
        route = Noise(rng, 0.6, 3)(np.linspace(0, rng.uniform(0.5, 2.5), 140)[:, None] * directions(rng, 1))
        lines = np.stack([route + rng.normal(0, 0.05, 3) for _ in range(int(rng.integers(1, 6)))])
        scene.add(
            Strands(
                lines,
                np.array(np.exp(rng.uniform(np.log(0.002), np.log(0.035)))),
                colours.shades(rng, colours.vivid(rng), len(lines), 0.3),
                finish(rng),
            )
        )
    scene.round_strands = True


def sieve(scene: Scene, draws: Draws) -> None:
    """Add perforated sheets: round, long or irregular holes, many of them small."""
    rng = draws.rng
    for _ in range(draws.integer("sheets", 1, 2)):
        u, v, quads = grid(420, 420)
        x, z = 2 * u - 1, 2 * v - 1
        cells = draws.log_uniform("holes", 6, 32)
        size = draws.uniform("hole size", 0.25, 0.44)
        shape = draws.choice("shape", ("round", "slots", "irregular"))
        if shape == "irregular":
            pattern = scalar_noise(rng, 1.5 / cells, np.stack([x, 0 * x, z], -1), octaves=2)
            inside = (pattern - np.quantile(pattern, 1 - size)) * 4
        else:
            row = np.floor(z * cells / 2)
            long = 1.0 if shape == "round" else draws.uniform("slots", 2, 6)
            a, b = (x * cells / 2 / long + 0.5 * (row % 2)) % 1 - 0.5, (z * cells / 2) % 1 - 0.5
            inside = (size - np.hypot(np.maximum(np.abs(a) - 0.5 * (1 - 1 / long), 0) * long, b)) * 12
        frame = np.maximum(np.abs(x), np.abs(z)) > 0.94
        points = np.stack([x, 0.15 * scalar_noise(rng, 1.0, np.stack([x, 0 * x, z], -1)), z], -1)
        turn = random_rotation(rng, 0.7)
        opacity = np.where(frame, 1.0, np.clip(0.5 - inside, 0, 1))
        scene.add(
            Surface(
                points @ turn.T + rng.normal(0, 0.15, 3), quads, painted(rng, points), finish(rng), opacity
            )
        )
    scene.reach, scene.centre = draws.uniform("reach", 0.6, 1.1), np.zeros(3)


def basket(scene: Scene, draws: Draws) -> None:
    """Add wickerwork or a lattice: bands that pass over and under each other, gaps between them."""
    rng = draws.rng
    cells = draws.integer("bands", 8, 26)
    t = np.linspace(-1, 1, 12 * cells)
    pitch = 2 / cells
    warp, depth = Noise(rng, 1.0, 3), draws.uniform("folds", 0.02, 0.15)
    lines = []
    for number, at in enumerate(np.linspace(-1, 1, cells + 1)):
        over = 0.22 * pitch * np.cos(np.pi * (t + 1) / pitch + np.pi * number)
        lines += [np.stack([t, over, np.full_like(t, at)], -1), np.stack([np.full_like(t, at), -over, t], -1)]
    bands = np.stack([line + depth * warp(line) + rng.normal(0, 0.04 * pitch, 3) for line in lines])
    bands = bands @ rotation(np.array([0.0, 1, 0]), draws.uniform("turn", 0, np.pi)).T
    thickness = pitch * draws.uniform("thickness", 0.07, 0.3)
    base = np.array([0.35, 0.2, 0.08]) * rng.uniform(0.4, 1.6) if rng.random() < 0.6 else colours.vivid(rng)
    scene.add(
        Strands(
            bands,
            np.array(thickness),
            colours.shades(rng, base, len(bands), 0.25),
            Plain(draws.uniform("roughness", 0.3, 0.8)),
        )
    )
    scene.round_strands = True
    scene.centre, scene.reach = np.zeros(3), draws.uniform("reach", 0.6, 1.2)


def wheel(scene: Scene, draws: Draws) -> None:
    """Add spoked wheels, rims and thin wires."""
    rng = draws.rng
    for _ in range(draws.integer("wheels", 1, 2)):
        turn, shift = random_rotation(rng, 0.8), rng.normal(0, 0.3, 3)
        count = draws.integer("spokes", 12, 44)
        angle = 2 * np.pi * np.arange(count) / count
        rim = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)
        cross = angle + rng.uniform(0.2, 0.8) * np.where(np.arange(count) % 2, 1, -1)
        hub = np.stack(
            [0.08 * np.cos(cross), 0.05 * np.where(np.arange(count) % 2, 1, -1), 0.08 * np.sin(cross)], -1
        )
        spokes = bent(hub, rim - hub, np.ones(count), np.zeros((count, 3)), 3)
        circle = np.linspace(0, 2 * np.pi, 241)
        hoops = [
            np.stack([r * np.cos(circle), 0 * circle + y, r * np.sin(circle)], -1)
            for r, y in ((1.0, 0), (1.06, 0), (0.97, 0.02))
        ]
        scene.add(
            Strands(
                spokes @ turn.T + shift,
                np.array(draws.log_uniform("spoke", 0.003, 0.012)),
                np.full(3, 0.55),
                Plain(0.2, metallic=1.0),
            )
        )
        scene.add(
            Strands(
                np.stack(hoops) @ turn.T + shift,
                np.array([[0.03], [0.045], [0.02]]),
                np.array([[[0.4] * 3], [[0.02] * 3], [[0.5] * 3]]),
                Plain(0.4),
            )
        )
        scene.add(
            Ellipsoid(shift, np.array([0.09, 0.09, 0.09])).surface(np.full(3, 0.3), Plain(0.3, metallic=1.0))
        )
    scene.round_strands = True


def springs(scene: Scene, draws: Draws) -> None:
    """Add coils, chains of wire and bundles of thin rods with gaps between them."""
    rng = draws.rng
    lines = []
    for _ in range(draws.integer("springs", 2, 7)):
        axis = resample(
            Noise(rng, 0.9, 3)(np.linspace(0, 1.6, 60)[:, None] * directions(rng, 1)) * 1.1
            + rng.normal(0, 0.2, 3),
            700,
        )
        lines.append(ply(axis, 1, rng.uniform(0.03, 0.16), rng.uniform(8, 50))[0])
    scene.add(
        Strands(
            np.stack(lines),
            np.array(draws.log_uniform("wire", 0.003, 0.016)),
            colours.shades(rng, colours.vivid(rng), len(lines), 0.5),
            finish(rng),
        )
    )
    rods = draws.integer("rods", 5, 60)
    starts = rng.normal(0, 0.35, (rods, 3)) - UP
    straight = bent(
        starts,
        np.tile(UP, (rods, 1)) + rng.normal(0, 0.12, (rods, 3)),
        rng.uniform(1.2, 2.2, rods),
        np.zeros((rods, 3)),
        8,
    )
    scene.add(
        Strands(
            frizz(rng, straight, 0.01, 1),
            draws.log_uniform("rod", 0.003, 0.02) * taper(8, 0.6),
            colours.shades(rng, colours.vivid(rng), rods, 0.4),
            finish(rng),
        )
    )
    scene.round_strands = True
