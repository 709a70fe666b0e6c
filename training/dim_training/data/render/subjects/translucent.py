"""Things that let light through: glass, bubbles, smoke, veils, wings and crumpled film."""

from __future__ import annotations

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Plain, Scene, Strands, Surface, ThinGlass
from dim_training.data.render.strands import frizz, taper
from dim_training.data.render.subjects.objects import finish, painted
from dim_training.data.render.surfaces import Ellipsoid, ball_points, grid, lathe, smooth_profile
from dim_training.data.render.vectors import UP, Floats, random_rotation, scalar_noise, smoothstep


def glass(scene: Scene, draws: Draws) -> None:
    """Add vessels of thin glass, with something opaque in or under some of them."""
    rng = draws.rng
    for _ in range(draws.integer("vessels", 1, 4)):
        turn, shift = random_rotation(rng, 0.3), rng.normal(0, 0.5, 3) * (1, 0.5, 0.3)
        height = rng.uniform(0.8, 1.7)
        profile = smooth_profile(rng, int(rng.integers(4, 9)), 0.08, rng.uniform(0.25, 0.55))
        vertices, quads = lathe(profile, height, columns=129, rows=161)
        material = ThinGlass(
            rng.uniform(0.02, 0.25), rng.uniform(2, 5), rng.uniform(0.0, 0.12), rng.uniform(0, 0.5)
        )
        scene.add(Surface(vertices @ turn.T + shift, quads, colours.vivid(rng), material))
        if rng.random() < 0.5:
            foot = Ellipsoid(
                shift - turn @ (0.5 * height * UP),
                np.array([float(profile(np.zeros(1))[0]) + 0.05] * 2 + [0.04]),
                turn,
            )
            scene.add(foot.surface(colours.vivid(rng), finish(rng)))
        if rng.random() < 0.4:
            t = np.linspace(0, 1, 240)
            wire = np.stack([0.07 * np.cos(50 * t), 0.07 * np.sin(50 * t), 0.8 * height * (t - 0.5)], -1)
            scene.add(
                Strands(
                    (wire @ turn.T + shift)[None],
                    np.array(rng.uniform(0.002, 0.01)),
                    colours.vivid(rng),
                    finish(rng),
                )
            )
    scene.bounces = 6


def bubbles(scene: Scene, draws: Draws) -> None:
    """Add soap bubbles or drops: nearly clear, brighter at the border."""
    rng = draws.rng
    for _ in range(draws.integer("bubbles", 3, 22)):
        solid = Ellipsoid(rng.normal(0, 0.5, 3), np.full(3, float(np.exp(rng.normal(np.log(0.2), 0.6)))))
        material = ThinGlass(rng.uniform(0.0, 0.08), rng.uniform(2, 5), 0.0, rng.uniform(0, 0.3))
        scene.add(solid.surface(colours.vivid(rng) * 0.5 + 0.4, material))
    scene.bounces = 6


def smoke(scene: Scene, draws: Draws) -> None:
    """Add smoke, mist, flames or spray as sheets of varying opacity behind each other."""
    rng = draws.rng
    kind = draws.choice("kind", {"smoke": 3.0, "wisps": 3.0, "flame": 1.0})
    tone = (
        np.array([0.9, 0.35, 0.06])
        if kind == "flame"
        else np.full(3, draws.uniform("tone", 0.05, 0.9)) * rng.uniform(0.85, 1.1, 3)
    )
    density = draws.uniform("density", 0.2, 0.8)
    for depth in np.linspace(-0.3, 0.3, draws.integer("sheets", 2, 4)):
        u, v, quads = grid(200, 200)
        x, z = 2 * u - 1, 2 * v - 1
        plane = np.stack([x, np.full_like(x, depth), z], -1)
        # Swirls: the noise is looked up at places that another noise has moved.
        moved = plane + 0.35 * np.stack(
            [scalar_noise(rng, 0.5, plane, 2), 0 * x, scalar_noise(rng, 0.5, plane, 2)], -1
        )
        cloud = scalar_noise(rng, 0.55, moved, octaves=5)
        if kind == "wisps":
            cloud = 0.9 - 3.2 * np.abs(cloud)
        column = 1.2 * np.hypot(x * (1.0 if kind == "smoke" else 1.8 - 0.8 * z), 0.8 * z)
        opacity = density * smoothstep(0.8 * cloud + 0.75 - column) * smoothstep(2.5 * (1 - np.hypot(x, z)))
        shade = np.clip(1 + 0.3 * cloud, 0.4, 1.6)[:, None]
        scene.add(
            Surface(plane, quads, np.clip(tone * shade, 0.004, 0.95), Plain(1.0, translucent=0.5), opacity)
        )
    scene.centre, scene.reach = np.zeros(3), draws.uniform("reach", 0.7, 1.0)


def veil(scene: Scene, draws: Draws) -> None:
    """Add thin cloth in folds, woven open or dense, over or before solid things."""
    rng = draws.rng
    for _ in range(draws.integer("veils", 1, 2)):
        u, v, quads = grid(361, 361)
        flat = np.stack([2 * u - 1, 0 * u, 2 * v - 1], -1)
        folds = scalar_noise(
            rng,
            draws.uniform("folds", 0.12, 0.4),
            flat * (1, 1, draws.uniform("stretch", 0.05, 0.4)),
            octaves=2,
        )
        points = flat + np.stack([0 * folds, draws.uniform("depth", 0.05, 0.25) * folds, 0.04 * folds], -1)
        weave = 0.5 + 0.5 * np.sin(np.pi * 2 * u * draws.uniform("warp threads", 30, 90)) * np.sin(
            np.pi * 2 * v * draws.uniform("weft threads", 30, 90)
        )
        base = draws.uniform("opacity", 0.1, 0.5)
        # Seen at an angle, in the slope of a fold, cloth hides more.
        slope = np.abs(np.gradient(folds.reshape(361, 361), axis=0)).ravel()
        opacity = np.clip(
            base + draws.uniform("weave", 0, 0.35) * weave + 0.6 * slope / (slope.max() + 1e-6), 0, 1
        )
        opacity = np.where(np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) < 0.012, 0.9, opacity)
        scene.add(
            Surface(
                points @ random_rotation(rng, 0.5).T + rng.normal(0, 0.15, 3) * (1, 0.3, 1),
                quads,
                colours.vivid(rng),
                Plain(0.8, translucent=0.4),
                opacity,
            )
        )
    for _ in range(draws.integer("things behind", 0, 2)):
        solid = Ellipsoid(
            rng.normal(0, 0.4, 3) * (1, 0, 1) + (0, 0.7, 0), rng.uniform(0.15, 0.5, 3), random_rotation(rng)
        )
        part = solid.surface(colours.vivid(rng), finish(rng))
        scene.add(Surface(part.vertices, part.faces, painted(rng, part.vertices), part.material))


def wings(scene: Scene, draws: Draws) -> None:
    """Add wings of insects: clear membranes between veins."""
    rng = draws.rng
    base = draws.uniform("membrane", 0.05, 0.4)
    tone, vein_tone = colours.vivid(rng), np.full(3, rng.uniform(0.01, 0.2))
    for number in range(draws.integer("wings", 2, 4)):
        side = 1 if number % 2 else -1
        turn = random_rotation(rng, 0.35)
        u, v, quads = grid(121, 61)
        shape = np.sin(np.pi * u**0.7) ** 0.6 * 0.28

        def place(
            u: Floats, v: Floats, shape: Floats, side: int = side, number: int = number, turn: Floats = turn
        ) -> Floats:
            across = (2 * v - 1) * shape
            return (
                np.stack(
                    [
                        side * (0.08 + 1.1 * u),
                        0.05 * np.sin(5 * u + 3 * v),
                        across + (0.35 * u if number < 2 else -0.4 * u),
                    ],
                    -1,
                )
            ) @ turn.T

        opacity = np.clip(
            base + 0.25 * smoothstep(2 * scalar_noise(rng, 0.15, np.stack([u, v, 0 * u], -1))), 0, 1
        )
        scene.add(Surface(place(u, v, shape), quads, tone, Plain(0.15, translucent=0.4), opacity))
        scene.add(*_veins(rng, place, vein_tone))
    body = np.stack([0.06 * np.sin(np.linspace(0, 3, 30)), np.zeros(30), np.linspace(0.5, -0.8, 30)], -1)
    scene.add(
        Strands(
            body[None],
            0.06 * np.interp(np.linspace(0, 1, 30), [0, 0.2, 0.4, 1], [0.6, 1.2, 1, 0.3])[None],
            vein_tone + 0.02,
            Plain(0.3),
        )
    )
    legs = np.stack(
        [
            np.linspace((0, -0.05, 0.1), (side * 0.35, -0.25, 0.1 - 0.2 * pair), 20)
            for side in (-1, 1)
            for pair in range(3)
        ]
    )
    scene.add(Strands(frizz(rng, legs, 0.06, 1), 0.006 * taper(20, 0.4), vein_tone, Plain(0.3)))
    scene.round_strands = True


def _veins(rng: Random, place: object, tone: Floats) -> list[Strands]:
    """Return veins along and across a wing."""
    assert callable(place)
    t = np.linspace(0.0, 1.0, 60)
    outline = np.sin(np.pi * t**0.7) ** 0.6 * 0.28
    along_wing = np.stack(
        [place(t, np.full_like(t, at), outline) for at in (0.0, 0.12, 0.3, 0.5, 0.7, 0.88, 1.0)]
    )
    count = int(rng.integers(20, 90))
    at = rng.uniform(0.1, 0.95, (count, 1)) + np.zeros((1, 8))
    across = rng.uniform(0, 0.85, (count, 1)) + np.linspace(0, 0.15, 8)
    crossing = place(at.ravel(), across.ravel(), np.sin(np.pi * at.ravel() ** 0.7) ** 0.6 * 0.28).reshape(
        count, 8, 3
    )
    return [
        Strands(along_wing, 0.005 * taper(60, 0.3), tone, Plain(0.3)),
        Strands(crossing, np.array(0.0018), tone, Plain(0.3)),
    ]


def film(scene: Scene, draws: Draws) -> None:
    """Add crumpled clear film or a plastic bag: facets that reflect and overlap."""
    rng = draws.rng
    for _ in range(draws.integer("sheets", 1, 3)):
        u, v, quads = grid(141, 141)
        ball = ball_points(u, v)
        # Absolute values of noise crease where the noise changes its sign.
        creases = sum(np.abs(scalar_noise(rng, scale, ball)) * scale for scale in (0.9, 0.45, 0.2, 0.1))
        points = ball * rng.uniform(0.4, 0.8, 3) * (0.7 + 0.8 * np.asarray(creases))[:, None]
        material = ThinGlass(
            rng.uniform(0.05, 0.35), rng.uniform(1.5, 4), rng.uniform(0.03, 0.25), rng.uniform(0.1, 0.7)
        )
        scene.add(
            Surface(
                points @ random_rotation(rng).T + rng.normal(0, 0.25, 3),
                quads,
                colours.vivid(rng) * 0.6 + 0.3,
                material,
                smooth=bool(rng.random() < 0.7),
            )
        )
    scene.bounces = 5
