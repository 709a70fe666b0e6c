"""Animals and soft toys: rounded bodies in combed, clumped or curly fur, with whiskers; and feathers."""

from __future__ import annotations

import numpy as np

from dim.arrays import Bool
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Hair, Plain, Scene, Strands
from dim_training.data.render.strands import along, bent, clump, coil, frizz, taper
from dim_training.data.render.surfaces import Ellipsoid
from dim_training.data.render.vectors import (
    UP,
    Floats,
    Noise,
    directions,
    random_rotation,
    rotation,
    scalar_noise,
    unit,
)

NOSE = np.array([0.02, 0.012, 0.012])


def animal(scene: Scene, draws: Draws) -> None:
    """Add a sitting animal: head with muzzle, ears, eyes and whiskers, chest, legs and tail."""
    rng = draws.rng
    turn = rotation(UP, draws.uniform("facing", -1.2, 1.2))
    size = draws.uniform("head", 0.3, 0.42)
    head = Ellipsoid(np.array([0, -0.25, 0.35]), size * rng.uniform((0.9, 0.9, 0.8), (1.1, 1.1, 1.0)))
    muzzle_length = draws.uniform("muzzle", 0.2, 0.75)
    muzzle = Ellipsoid(
        head.centre - size * np.array([0, 0.6 + 0.5 * muzzle_length, 0.28]),
        size * np.array([0.42, 0.3 + 0.5 * muzzle_length, 0.36]),
    )
    chest = Ellipsoid(np.array([0, 0.05, -0.5]), rng.uniform((0.38, 0.4, 0.5), (0.6, 0.6, 0.7)))
    fur = [head, muzzle, chest, *_ears(draws, head, size)]
    legs = np.array([0.13, 0.15, 0.4])
    fur += [Ellipsoid(np.array([side * 0.25, -0.3, -0.95]), legs) for side in (-1, 1)]
    if draws.chance("tail", 0.6):
        fur.append(
            Ellipsoid(
                np.array([rng.choice([-1, 1]) * 0.65, 0.35, -0.6]),
                np.array([0.12, 0.12, 0.5]),
                random_rotation(rng, 0.7),
            )
        )
    placed = [Ellipsoid(turn @ solid.centre, solid.radii, turn @ solid.turn) for solid in fur]
    add_fur(
        scene,
        draws,
        placed,
        colours.hair_colour(draws, "coat"),
        colours.hair_colour(draws, "markings"),
        curly=False,
    )
    tip = muzzle.centre + muzzle.radii * (0, -1.0, 0.3)
    scene.add(Ellipsoid(turn @ tip, size * np.array([0.16, 0.1, 0.12])).surface(NOSE, Plain(0.2)))
    for side in (-1, 1):
        eye = head.centre + head.radii * unit(np.array([side * 0.42, -0.85, 0.15])) * 1.03
        scene.add(Ellipsoid(turn @ eye, np.full(3, 0.12 * size)).surface(np.full(3, 0.006), Plain(0.04)))
    if draws.chance("whiskers", 0.7):
        _add_whiskers(scene, draws, muzzle, turn)


def _ears(draws: Draws, head: Ellipsoid, size: float) -> list[Ellipsoid]:
    length = draws.uniform("ears", 0.35, 1.1) * size
    tilt = draws.uniform("ear tilt", 0.1, 1.3)
    ears = []
    for side in (-1, 1):
        turn = rotation(np.array([0.0, 1.0, 0.0]), side * tilt)
        root = head.centre + head.radii * (side * 0.6, 0.1, 0.75)
        ears.append(
            Ellipsoid(root + turn @ (0.6 * length * UP), np.array([0.35 * size, 0.09 * size, length]), turn)
        )
    return ears


def _add_whiskers(scene: Scene, draws: Draws, muzzle: Ellipsoid, turn: Floats) -> None:
    rng = draws.rng
    count = draws.integer("whisker count", 8, 36)
    side = rng.choice([-1.0, 1.0], count)
    roots = muzzle.centre + muzzle.radii * np.stack(
        [0.75 * side, rng.uniform(-0.8, -0.4, count), rng.uniform(-0.4, 0.3, count)], -1
    )
    way = unit(np.stack([side, rng.uniform(-0.7, 0.1, count), rng.normal(0, 0.25, count)], -1))
    bend = np.stack([0 * side, rng.uniform(0, 0.3, count), rng.uniform(-0.35, 0.05, count)], -1)
    lines = bent(roots, way, rng.uniform(0.25, 0.75, count), bend, 14) @ turn.T
    shade = np.full(3, 0.85 if rng.random() < 0.75 else 0.02)
    scene.add(
        Strands(lines, draws.log_uniform("whisker radius", 0.001, 0.0035) * taper(14, 0.1), shade, Hair(0.2))
    )


def plush(scene: Scene, draws: Draws) -> None:
    """Add pompoms, cushions or soft toys in any colour."""
    rng = draws.rng
    count = draws.integer("parts", 1, 4)
    solids = [
        Ellipsoid(
            directions(rng, 1)[0] * 0.45 * min(1, count - 1),
            rng.uniform(0.25, 0.6) * np.exp(rng.normal(0, 0.2, 3)),
            random_rotation(rng),
        )
        for _ in range(count)
    ]
    add_fur(scene, draws, solids, colours.vivid(rng), colours.vivid(rng), curly=draws.chance("curly", 0.5))


def add_fur(
    scene: Scene, draws: Draws, solids: list[Ellipsoid], first: Floats, second: Floats, *, curly: bool
) -> None:
    """Cover solids with fur in two colours: an undercoat, and a few longer guard hairs."""
    rng = draws.rng
    skin = 0.45 * (first + second) / 2
    scene.add(*(solid.surface(skin, Plain(0.8), scale=0.985) for solid in solids))
    length = draws.log_uniform("fur length", 0.05, 0.32)
    lean = draws.uniform("combing", 0.2, 1.6)
    for layer, share, longer in (("undercoat", 1.0, 1.0), ("guard hairs", 0.06, 1.7)):
        count = int(draws.log_uniform(layer, 14000, 45000) * share)
        roots, normals = _fur_roots(draws, solids, count)
        strands = _fur_strands(draws, roots, normals, length * longer, lean)
        if layer == "undercoat":
            strands = clump(
                rng, strands, draws.log_uniform("clump", 5, 60), draws.uniform("tightness", 0.1, 0.8)
            )
        if curly:
            strands = coil(rng, strands, 0.13 * length, draws.uniform(f"turns {layer}", 1, 3.5), 0.2)
        strands = frizz(rng, strands, 0.04 * length, 1.0)
        radius = draws.log_uniform(f"radius {layer}", 0.0008, 0.003)
        tint = _coat(draws, roots, first, second) * (
            1 + draws.uniform(f"tips {layer}", -0.4, 0.6) * along(strands.shape[1])
        )
        scene.add(
            Strands(
                strands,
                radius * taper(strands.shape[1], 0.15, 2.0),
                np.clip(tint, 0.003, 0.95),
                Hair(draws.uniform(f"gloss {layer}", 0.2, 0.5)),
            )
        )


def _fur_roots(draws: Draws, solids: list[Ellipsoid], count: int) -> tuple[Floats, Floats]:
    """Return points of the surface of the union of solids, and the normals there."""
    total = sum(solid.area for solid in solids)
    found = [solid.roots(draws.rng, max(20, int(count * solid.area / total))) for solid in solids]
    roots, normals = (np.concatenate(part) for part in zip(*found, strict=True))
    outside = np.min([solid.depth(roots) for solid in solids], axis=0) > 0.98
    return roots[outside], normals[outside]


def _fur_strands(draws: Draws, roots: Floats, normals: Floats, length: float, lean: float) -> Floats:
    rng, count = draws.rng, len(roots)
    combed = np.array([0.0, 0.3, -0.8]) + 0.8 * Noise(rng, 0.6, 3)(roots)
    # Only the part along the surface combs; hair never grows inwards.
    combed = combed - normals * (combed * normals).sum(-1, keepdims=True)
    way = unit(normals + lean * combed + rng.normal(0, 0.15, roots.shape))
    patchy = np.clip(1 + 0.35 * scalar_noise(rng, 0.4, roots), 0.3, 2)
    return bent(
        roots,
        way,
        length * patchy * rng.gamma(14, 1 / 14, count),
        0.3 * combed - 0.25 * UP + rng.normal(0, 0.1, roots.shape),
        12,
    )


def _coat(draws: Draws, roots: Floats, first: Floats, second: Floats) -> Floats:
    """Return count × 1 × 3 colours: patches, stripes or a plain coat."""
    rng = draws.rng
    stretch = np.array([1, 1, draws.uniform("stripes", 0.5, 4)])
    pattern = scalar_noise(rng, draws.log_uniform("patches", 0.15, 0.9), roots * stretch)
    share = 1 / (1 + np.exp(-9 * (pattern - draws.uniform("marked", -0.5, 1.2))))
    mixed = (first + (second - first) * share[:, None])[:, None]
    return np.asarray(mixed * np.exp(rng.normal(0, 0.18, (len(roots), 1, 1))))


def feathers(scene: Scene, draws: Draws) -> None:
    """Add feathers: a shaft, barbs that part into groups, downy and loose at the base."""
    for _ in range(draws.integer("feathers", 1, 5)):
        _add_feather(scene, draws)


def _add_feather(scene: Scene, draws: Draws) -> None:
    rng = draws.rng
    turn, shift = random_rotation(rng, 1.4), rng.normal(0, 0.35, 3) * (1, 0.4, 1)
    t = np.linspace(0, 1, 50)
    bend = rng.normal(0, 0.25)
    shaft = np.stack([bend * t**2, rng.normal(0, 0.1) * np.sin(3 * t), 2 * t - 1], -1)
    first, second = (
        colours.hair_colour(draws, "vane") if rng.random() < 0.6 else colours.vivid(rng),
        colours.vivid(rng),
    )
    scene.add(Strands((shaft @ turn.T + shift)[None], 0.01 * taper(50, 0.1), 0.3 * first + 0.3, Plain(0.35)))
    width, bands = draws.uniform("width", 0.12, 0.35), rng.uniform(0, 40)
    for side in (-1.0, 1.0):
        count = draws.integer("barbs", 180, 420)
        at = np.sort(rng.uniform(0.1, 1, count))
        down = at < rng.uniform(0.18, 0.35)
        # Barbs part where hooks have come loose: all above a split turn by one angle.
        part = np.cumsum(rng.random(count) < 0.05)
        angle = np.where(
            down,
            rng.normal(1.2, 0.6, count),
            0.75 + 0.12 * rng.normal(size=part[-1] + 1)[part] + rng.normal(0, 0.015, count),
        )
        starts = np.stack([np.interp(at, t, shaft[:, axis]) for axis in range(3)], -1)
        lengths = width * np.sin(np.pi * (0.06 + 0.9 * at)) ** 0.5 * rng.gamma(200, 1 / 200, count)
        way = np.stack(
            [
                side * np.sin(angle),
                np.where(down, rng.normal(0, 0.5, count), 0.08 * rng.normal(size=count)),
                np.cos(angle),
            ],
            -1,
        )
        curve = np.where(down[:, None], rng.normal(0, 0.6, (count, 3)), np.array([-0.1 * side, 0.12, 0.22]))
        barbs = bent(starts, way, lengths, curve, 10)
        tint = np.where((np.sin(bands * at) > 0.3)[:, None], second, first)[:, None] * np.exp(
            rng.normal(0, 0.08, (count, 1, 1))
        )
        scene.add(Strands(barbs @ turn.T + shift, 0.0018 * taper(10, 0.4), tint, Plain(0.5)))
        _add_barbules(scene, draws, barbs, way, down, tint, turn, shift)


def _add_barbules(
    scene: Scene,
    draws: Draws,
    barbs: Floats,
    way: Floats,
    down: Bool,
    tint: Floats,
    turn: Floats,
    shift: Floats,
) -> None:
    rng = draws.rng
    count = 26 * len(barbs)
    owner, place = rng.integers(len(barbs), size=count), rng.integers(1, barbs.shape[1], count)
    direction = unit(way[owner] + 0.9 * directions(rng, count) * (1, 0.5, 1) + 0.4 * UP)
    lengths = np.where(down[owner], 0.06, 0.014) * rng.gamma(4, 0.25, count)
    lines = bent(barbs[owner, place], direction, lengths, 0.4 * rng.normal(size=(count, 3)), 4)
    scene.add(Strands(lines @ turn.T + shift, np.array(0.0008), tint[owner], Plain(0.5)))
