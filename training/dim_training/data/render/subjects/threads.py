"""Threads: tassels, skeins, frayed ropes, knitwear, nets, lace and webs."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands
from dim_training.data.render.strands import (
    along,
    bent,
    clump,
    coil,
    frizz,
    fuzz,
    length_of,
    ply,
    resample,
    taper,
)
from dim_training.data.render.surfaces import Ellipsoid
from dim_training.data.render.vectors import UP, Floats, Noise, rotation, unit

Place = Callable[[Floats, Floats], Floats]
"""Maps u and v of a flat pattern, about −1 to 1, to points in space."""


def add_yarn(
    scene: Scene, draws: Draws, lines: Floats, radius: float, tints: Floats, *, hairy: float
) -> None:
    """Add twisted yarns along n × k × 3 lines, a shade for each (n × 1 × 3), with fibres that stand off.

    Args:
        radius: of a yarn, scene units.
        hairy: fibres for each piece of a yarn as long as the radius.
    """
    rng = draws.rng
    count = draws.integer("plies", 2, 4)
    turns = length_of(lines[0]) / radius * draws.uniform("twist", 0.05, 0.12)
    plies = np.concatenate([ply(line, count, 0.5 * radius, turns) for line in lines])
    # Each ply differs a little from the others, as spun fibres do.
    own = np.repeat(np.broadcast_to(tints, (len(lines), tints.shape[1], 3)), count, 0) * np.exp(
        rng.normal(0, 0.1, (len(plies), 1, 1))
    )
    material = Plain(draws.uniform("yarn roughness", 0.7, 1.0))
    scene.add(Strands(plies, np.array(0.58 * radius), own, material))
    total = sum(length_of(line) for line in lines)
    fibres = int(min(60000, hairy * total / radius))
    if fibres > 0:
        strands, owner = fuzz(rng, plies, fibres, draws.uniform("fuzz length", 1.2, 3.5) * radius)
        shade = own[owner, :1] * np.exp(rng.normal(0, 0.15, (fibres, 1, 1)))
        scene.add(
            Strands(
                strands, draws.log_uniform("fuzz radius", 0.0004, 0.0012) * taper(5, 0.4), shade, material
            )
        )
    scene.round_strands = True


def tassel(scene: Scene, draws: Draws) -> None:
    """Add a tassel or fringe of yarns, each in its own shade, gathered at the top."""
    rng = draws.rng
    count = int(draws.log_uniform("yarns", 15, 160))
    width, opening = draws.uniform("width", 0.1, 0.8), draws.uniform("opening", 0.0, 0.8)
    roots = np.stack(
        [rng.uniform(-width, width, count), rng.normal(0, 0.08, count), np.full(count, 0.75)], -1
    )
    way = unit(
        np.stack([opening * roots[:, 0], rng.normal(0, 0.1, count), np.full(count, -1.0)], -1)
        + rng.normal(0, 0.06, (count, 3))
    )
    lines = bent(
        roots, way, rng.uniform(1.2, 1.6) * rng.gamma(60, 1 / 60, count), rng.normal(0, 0.12, (count, 3)), 70
    )
    lines = frizz(rng, lines, draws.uniform("wobble", 0.005, 0.05), draws.uniform("waves", 1, 4))
    if draws.chance("crimped", 0.35):
        lines = coil(rng, lines, draws.uniform("crimp", 0.01, 0.03), draws.uniform("crimps", 4, 12), 0.5)
    radius = draws.log_uniform("yarn radius", 0.007, 0.022)
    add_yarn(
        scene,
        draws,
        lines,
        radius,
        colours.thread_colours(draws, count),
        hairy=draws.uniform("hairy", 0, 1.2),
    )
    _add_frayed_ends(scene, draws, lines, radius)
    bar = np.linspace((-width - 0.1, 0, 0.76), (width + 0.1, 0, 0.76), 40)
    wrap = ply(bar, 5, 0.03, 9)
    scene.add(Strands(wrap, np.array(0.018), colours.thread_colours(draws, 5), Plain(0.8)))


def _add_frayed_ends(scene: Scene, draws: Draws, lines: Floats, radius: float) -> None:
    """Let fine fibres leave the end of each yarn."""
    rng = draws.rng
    each = draws.integer("frayed fibres", 0, 60)
    if each == 0:
        return
    ends = np.repeat(lines[:, -1], each, 0) + rng.normal(0, 0.4 * radius, (len(lines) * each, 3))
    way = unit(
        np.repeat(lines[:, -1] - lines[:, -4], each, 0) / (3 * length_of(lines[0]) / lines.shape[1])
        + rng.normal(0, 0.25, ends.shape)
    )
    fibres = bent(
        ends,
        way,
        draws.uniform("frayed length", 0.04, 0.2) * rng.gamma(4, 0.25, len(ends)),
        0.4 * rng.normal(size=ends.shape),
        7,
    )
    scene.add(
        Strands(
            fibres,
            draws.log_uniform("frayed radius", 0.0005, 0.0015) * taper(7, 0.5),
            np.repeat(colours.thread_colours(draws, len(lines)), each, 0),
            Plain(0.8),
        )
    )


def skein(scene: Scene, draws: Draws) -> None:
    """Add a loosely wound skein or ball of yarn with loops that stand off."""
    rng = draws.rng
    loops = draws.integer("loops", 12, 60)
    flatness, size = draws.uniform("flatness", 0.25, 1.0), draws.uniform("loop", 0.55, 0.8)
    angle = np.linspace(0, 2 * np.pi, 90)
    lines = []
    for _ in range(loops):
        axis = rotation(unit(rng.normal(size=3) * (1, flatness, 1)), rng.uniform(-1, 1) * np.pi * flatness)
        ring = (
            size
            * rng.gamma(60, 1 / 60)
            * np.stack([np.cos(angle), 0.35 * np.sin(2 * angle) * rng.normal(0, 0.3), np.sin(angle)], -1)
        )
        lines.append(ring @ axis.T + rng.normal(0, 0.04, 3))
    stacked = frizz(rng, np.stack(lines), draws.uniform("wobble", 0.01, 0.06), 2.5)
    add_yarn(
        scene,
        draws,
        stacked,
        draws.log_uniform("yarn radius", 0.01, 0.028),
        colours.thread_colours(draws, loops),
        hairy=draws.uniform("hairy", 0, 1.0),
    )
    loose = np.linspace((0, 0, -0.5), (rng.uniform(-1, 1), 0, -1.2), 80)[None]
    add_yarn(scene, draws, frizz(rng, loose, 0.2, 2), 0.014, colours.thread_colours(draws, 1), hairy=0.6)


def frayed_rope(scene: Scene, draws: Draws) -> None:
    """Add a rope whose end opens into strands and fibres."""
    rng = draws.rng
    t = np.linspace(0, 1, 160)
    core = np.stack([0.25 * np.sin(2.5 * t + rng.uniform(0, 6)), 0.1 * np.sin(4 * t), 1.3 - 1.5 * t], -1)
    radius, count = draws.uniform("rope radius", 0.06, 0.15), draws.integer("rope strands", 3, 5)
    plies = ply(core, count, 0.5 * radius, draws.uniform("lay", 4, 9))
    base = colours.vivid(rng) if rng.random() < 0.5 else np.array([0.42, 0.3, 0.16])
    scene.add(Strands(plies, np.array(0.52 * radius), colours.shades(rng, base, count, 0.12), Plain(0.85)))
    end = np.repeat(plies[:, -1], draws.integer("fibres", 100, 900), 0)
    end = end + rng.normal(0, 0.35 * radius, end.shape)
    way = unit(-UP + 1.6 * (end - core[-1]) + rng.normal(0, draws.uniform("spread", 0.1, 0.4), end.shape))
    fibres = bent(
        end, way, rng.uniform(0.5, 1.1) * rng.gamma(8, 1 / 8, len(end)), rng.normal(0, 0.4, end.shape), 16
    )
    fibres = frizz(
        rng, clump(rng, fibres, draws.uniform("clump", 8, 60), draws.uniform("tightness", 0, 0.8)), 0.02, 2.5
    )
    scene.add(
        Strands(
            fibres,
            draws.log_uniform("fibre radius", 0.0006, 0.0022) * taper(16, 0.6),
            colours.shades(rng, base, len(fibres), 0.25),
            Plain(0.8),
        )
    )
    standing, owner = fuzz(rng, plies, int(draws.log_uniform("fuzz", 300, 6000)), 0.5 * radius)
    scene.add(Strands(standing, np.array(0.0008), colours.shades(rng, base, len(owner), 0.2), Plain(0.8)))
    scene.round_strands = True
    scene.centre, scene.reach = core[-1] + (0, 0, -0.2), draws.uniform("reach", 0.6, 1.1)


def knit(scene: Scene, draws: Draws) -> None:
    """Add loose knitwear with an open edge: rows of interlocking loops, each row in its own shade."""
    rng = draws.rng
    rows, columns = draws.integer("rows", 6, 16), draws.integer("columns", 6, 16)
    pitch, rise = 2.0 / columns, 2.0 / rows
    t = np.linspace(0, 2 * np.pi * columns, 24 * columns)
    lines = []
    for row in range(rows):
        flat = np.stack(
            [
                pitch * (t / (2 * np.pi) + 0.2 * np.sin(2 * t)) - 1,
                0.28 * pitch * np.cos(2 * t),
                rise * (row - 0.8 * np.cos(t)) - 1,
            ],
            -1,
        )
        lines.append(resample(flat, 20 * columns))
    warp = Noise(rng, 0.8, 3)
    warped = np.stack([line + draws.uniform("warp", 0.03, 0.12) * warp(line) for line in lines])
    add_yarn(
        scene,
        draws,
        warped,
        pitch * draws.uniform("thickness", 0.12, 0.22),
        colours.thread_colours(draws, rows),
        hairy=draws.uniform("hairy", 0.2, 1.2),
    )


def _draped(draws: Draws) -> Place:
    """Return a sheet with folds, or one around a ball."""
    rng = draws.rng
    warp, depth = Noise(rng, draws.uniform("fold size", 0.5, 1.3), 3), draws.uniform("folds", 0.03, 0.2)
    if draws.chance("around a ball", 0.2):

        def ball(u: Floats, v: Floats) -> Floats:
            points = unit(np.stack([u, -np.sqrt(np.maximum(0.05, 1.6 - u**2 - v**2)), v], -1))
            return points + 0.3 * depth * warp(points)

        return ball

    def sheet(u: Floats, v: Floats) -> Floats:
        points = np.stack([u, 0 * u, v], -1)
        return cast(Floats, points + depth * warp(points))

    return sheet


def net(scene: Scene, draws: Draws) -> None:
    """Add a net: tulle, fishing net, fence or bag, in threads from a tenth of a pixel to ropes."""
    rng = draws.rng
    place = _draped(draws)
    kind = draws.choice("mesh", {"square": 2.0, "diamond": 2.0, "hexagon": 3.0})
    cells = int(draws.log_uniform("cells", 7, 60))
    lines = np.stack([resample(line, 14 * cells) for line in _mesh_lines(kind, cells, place)])
    thickness = draws.log_uniform("thickness", 0.015, 0.1) * 2 / cells
    cloth = draws.choice("material", {"thread": 3.0, "wire": 1.0, "plastic": 1.0})
    base = np.full(3, rng.uniform(0.1, 0.6)) if cloth == "wire" else colours.vivid(rng)
    material = Plain(0.25, metallic=1.0) if cloth == "wire" else Plain(0.3 if cloth == "plastic" else 0.8)
    tint = colours.shades(rng, base, len(lines), draws.uniform("shades", 0.02, 0.2))
    if cloth == "thread" and thickness > 0.006:
        add_yarn(scene, draws, lines, thickness, tint, hairy=draws.uniform("hairy", 0, 0.5))
    else:
        scene.add(Strands(lines, np.array(max(thickness, 0.0004)), tint, material))
    scene.round_strands = thickness > 0.005
    if draws.chance("knots", 0.4) and kind != "hexagon":
        grid = np.linspace(-1, 1, cells + 1)
        u, v = (axis.ravel() for axis in np.meshgrid(grid, grid))
        # A short thick strand is a knot: a round bead.
        ends = place(u, v)[:, None] + np.linspace(-1, 1, 5)[None, :, None] * thickness * 1.6 * UP
        scene.add(Strands(ends, 1.9 * thickness * np.array([[0.3, 0.9, 1, 0.9, 0.3]]), base, material))
    scene.centre, scene.reach = np.zeros(3), draws.uniform("reach", 0.7, 1.15)


def _mesh_lines(kind: str, cells: int, place: Place) -> list[Floats]:
    """Return the threads of a mesh with ``cells`` cells on each side."""
    t = np.linspace(-1, 1, 14 * cells)
    grid = np.linspace(-1, 1, cells + 1)
    if kind == "square":
        return [place(np.full_like(t, at), t) for at in grid] + [place(t, np.full_like(t, at)) for at in grid]
    if kind == "diamond":
        both = []
        for at in np.linspace(-2, 2, 2 * cells + 1)[2:-2]:
            u = t[np.abs(t + at) <= 1]
            both += [place(u + at, u), place(-u - at, u)]
        return both
    # Hexagons: neighbouring zigzags meet along their vertical stretches.
    wave = (t + 1) / 2 * cells
    zigzag = np.clip(3 * np.abs((wave % 2) - 1) - 1, 0, 1) - 0.5
    pitch = 2 / cells
    return [place(at + pitch * zigzag * (1 if number % 2 else -1), t) for number, at in enumerate(grid)]


def lace(scene: Scene, draws: Draws) -> None:
    """Add lace: a fine ground of hexagons, motifs of thicker thread on it, and a scalloped border."""
    rng = draws.rng
    place = _draped(draws)
    base = np.full(3, rng.uniform(0.5, 0.9)) if rng.random() < 0.5 else colours.vivid(rng)
    ground = draws.integer("ground cells", 24, 70)
    lines = np.stack([resample(line, 14 * ground) for line in _mesh_lines("hexagon", ground, place)])
    scene.add(
        Strands(
            lines,
            np.array(draws.log_uniform("ground thread", 0.0009, 0.003)),
            colours.shades(rng, base, len(lines), 0.1),
            Plain(0.8),
        )
    )
    motifs = draws.integer("motifs", 2, 5)
    thread = draws.log_uniform("thread", 0.006, 0.018) / motifs
    curves: list[Floats] = []
    shape = _rosette(draws)
    for row in range(motifs):
        for column in range(motifs + row % 2):
            centre = (np.array([column + 0.5 * (1 - row % 2), row + 0.5]) / motifs) * 2 - 1
            curves += [place(*(centre[:, None] + 0.95 * line.T / motifs)) for line in shape]
    t = np.linspace(-1, 1, 400)
    scallop = 0.07 * np.abs(np.sin(np.pi * t * rng.integers(4, 14)))
    curves += [place(t, -1 - scallop), place(t, -1.03 - 0.8 * scallop), place(t, 1 + scallop)]
    strands = np.stack([resample(curve, 220) for curve in curves])
    scene.add(Strands(strands, np.array(thread), colours.shades(rng, base, len(strands), 0.1), Plain(0.8)))
    if draws.chance("fuzzy", 0.5):
        fibres, _ = fuzz(rng, strands, 9000, 3 * thread)
        scene.add(Strands(fibres, np.array(0.0006), base, Plain(0.8)))
    scene.centre, scene.reach = np.zeros(3), draws.uniform("reach", 0.6, 1.15)


def _rosette(draws: Draws) -> list[Floats]:
    """Return closed curves, k × 2, of one motif: petals around rings, filled with a zigzag."""
    rng = draws.rng
    a = np.linspace(0, 2 * np.pi, 240)
    petals = draws.integer("petals", 4, 14)
    rings = [
        (rng.uniform(0.15, 0.9), rng.uniform(0.03, 0.25), petals * int(rng.integers(1, 3)))
        for _ in range(draws.integer("rings", 2, 5))
    ]
    curves = [
        np.stack([np.cos(a), np.sin(a)], -1) * (radius + amount * np.sin(waves * a))[:, None]
        for radius, amount, waves in rings
    ]
    zigzag = np.where(np.arange(240) % 6 < 3, 0.85, 0.55)[:, None]
    curves.append(np.stack([np.cos(a), np.sin(a)], -1) * zigzag)
    return curves


def web(scene: Scene, draws: Draws) -> None:
    """Add a spider's web, with dew or without."""
    rng = draws.rng
    spokes, turns = draws.integer("spokes", 12, 30), draws.integer("turns", 12, 34)
    angle = 2 * np.pi * (np.arange(spokes) + rng.uniform(-0.3, 0.3, spokes)) / spokes
    tips = np.stack([np.cos(angle), rng.normal(0, 0.03, spokes), np.sin(angle)], -1) * rng.uniform(
        0.8, 1.3, (spokes, 1)
    )
    spoke_lines = tips[:, None] * along(20)
    ring, spoke = np.divmod(np.arange(3 * spokes, turns * spokes), spokes)
    following = (spoke + 1) % spokes
    first = tips[spoke] * ((ring + spoke / spokes) / turns)[:, None]
    last = tips[following] * ((ring + (spoke + 1) / spokes) / turns)[:, None]
    s = along(8)
    threads = (
        first[:, None] * (1 - s)
        + last[:, None] * s
        - 4 * s * (1 - s) * (0.03 * (first + last)[:, None] + 0.008 * UP)
    )
    threads = threads[rng.random(len(threads)) > 0.03]
    radius, gray = draws.log_uniform("radius", 0.0006, 0.0025), np.full(3, rng.uniform(0.4, 0.9))
    scene.add(
        Strands(spoke_lines, np.array(1.4 * radius), gray, Plain(0.3)),
        Strands(threads, np.array(radius), gray, Plain(0.3)),
    )
    if draws.chance("dew", 0.5):
        count = draws.integer("drops", 200, 1500)
        at = threads[rng.integers(len(threads), size=count), rng.integers(8, size=count)]
        size = radius * rng.uniform(1.5, 5, (count, 1))
        drops = at[:, None] + np.linspace(-1, 1, 5)[None, :, None] * size[..., None] * UP
        scene.add(Strands(drops, size * np.array([[0.2, 0.85, 1, 0.85, 0.2]]), gray, Plain(0.03)))


def fibres(scene: Scene, draws: Draws) -> None:
    """Add a loose heap of fibres, as of cotton, wool or lint, around denser cores."""
    rng: Random = draws.rng
    count = int(draws.log_uniform("fibres", 3000, 16000))
    cores = rng.normal(0, 0.35, (draws.integer("cores", 1, 5), 3))
    start = cores[rng.integers(len(cores), size=count)] + rng.normal(
        0, draws.uniform("looseness", 0.08, 0.2), (count, 3)
    )
    strands = bent(
        start,
        unit(rng.normal(size=(count, 3))),
        draws.uniform("length", 0.2, 0.6) * rng.gamma(3, 1 / 3, count),
        rng.normal(0, 0.7, (count, 3)),
        16,
    )
    strands = frizz(rng, strands, 0.07, 2.0)
    base = np.full(3, rng.uniform(0.4, 0.85)) if rng.random() < 0.5 else colours.vivid(rng)
    scene.add(
        Strands(
            strands,
            draws.log_uniform("radius", 0.0005, 0.002) * taper(16, 0.7),
            colours.shades(rng, base, count, 0.15),
            Plain(0.9),
        )
    )
    scene.add(
        *(Ellipsoid(core, rng.uniform(0.12, 0.28, 3)).surface(0.9 * base, Plain(0.9)) for core in cores)
    )
