"""People: a head with a face, a bust, and hair that is combed, gathered, curled, wet or blown.

Hair is simulated as a few hundred guides, which fall and slide over the head, and strands between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dim.arrays import Random
from dim_training.data.render import colours
from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Hair, Plain, Scene, Strands, Surface
from dim_training.data.render.strands import along, bent, clump, coil, frizz, nearest, taper
from dim_training.data.render.surfaces import Ellipsoid, ball_points, grid
from dim_training.data.render.vectors import UP, Floats, Noise, directions, rotation, scalar_noise, unit

HEAD = Ellipsoid(np.zeros(3), np.array([0.37, 0.46, 0.5]))
NECK = Ellipsoid(np.array([0.0, 0.05, -0.6]), np.array([0.17, 0.17, 0.5]))
SHOULDERS = Ellipsoid(np.array([0.0, 0.05, -1.3]), np.array([0.84, 0.38, 0.56]))
"""Solids that hair rests on; the face looks along −y."""

BUST_HEIGHTS = (-2.1, -1.2, -1.0, -0.87, -0.76, -0.66, -0.5, -0.2)
BUST_WIDTHS = (0.78, 0.84, 0.8, 0.66, 0.36, 0.2, 0.165, 0.17)
BUST_DEPTHS = (0.4, 0.38, 0.36, 0.3, 0.23, 0.18, 0.165, 0.17)
"""Half axes of the bust's cross-sections, from the chest to the top of the neck."""

HAIRLINE = ((-1.0, -0.6, -0.1, 0.3, 1.0), (0.62, 0.5, 0.02, -0.35, -0.45))
"""Hair grows above this height, by depth: both in units of the head's half axes, the forehead at −1."""

FEATURES = np.array(
    [
        # x, z: place; x, z: width; height. In units of the head's half axes.
        (0.0, 0.02, 0.075, 0.17, 0.055),  # bridge of the nose
        (0.0, -0.17, 0.085, 0.065, 0.13),  # its tip
        (-0.3, 0.21, 0.2, 0.06, 0.025),  # brows
        (0.3, 0.21, 0.2, 0.06, 0.025),
        (-0.36, 0.05, 0.14, 0.09, -0.06),  # eye sockets
        (0.36, 0.05, 0.14, 0.09, -0.06),
        (-0.5, -0.2, 0.2, 0.18, 0.03),  # cheeks
        (0.5, -0.2, 0.2, 0.18, 0.03),
        (0.0, -0.42, 0.17, 0.03, 0.04),  # lips
        (0.0, -0.5, 0.14, 0.035, 0.045),
        (0.0, -0.8, 0.22, 0.14, 0.06),  # chin
    ]
)
LIPS = FEATURES[8:10]
EYES = (0.36, 0.05)

GUIDES, GUIDE_POINTS = 350, 26


@dataclass(frozen=True)
class Style:
    """Style of hair.

    Attributes:
        length: of the strands, in scene units: a head is one unit high.
        weight: pull of gravity at each step of a guide, relative to its stiffness.
        volume: distance that hair keeps from the head, scene units.
        flow: where hair is combed: "parted", "back", "forward", "out" or "tied".
        curl: radius of the helices, scene units; 0 is straight.
        turns: of a helix for each unit of length.
        clumps: strands that stick together.
        tightness: how closely they do, 0-1.
    """

    length: tuple[float, float]
    weight: tuple[float, float]
    volume: tuple[float, float]
    flow: str
    curl: tuple[float, float] = (0.0, 0.0)
    turns: tuple[float, float] = (1.0, 2.0)
    clumps: tuple[float, float] = (15, 60)
    tightness: tuple[float, float] = (0.15, 0.6)


STYLES: dict[str, tuple[Style, float]] = {
    "long": (Style((0.9, 1.7), (0.2, 0.4), (0.02, 0.06), "parted"), 3.0),
    "wavy": (Style((0.7, 1.5), (0.15, 0.35), (0.03, 0.09), "parted", (0.012, 0.04), (1.2, 3.0)), 3.0),
    "curly": (
        Style((0.5, 1.1), (0.08, 0.2), (0.04, 0.1), "parted", (0.02, 0.05), (4, 9), tightness=(0.5, 0.85)),
        2.0,
    ),
    "coily": (
        Style((0.25, 0.55), (0.0, 0.03), (0.03, 0.08), "out", (0.006, 0.018), (9, 22), (6, 25), (0.3, 0.7)),
        1.5,
    ),
    "short": (Style((0.12, 0.3), (0.02, 0.1), (0.01, 0.03), "back"), 2.0),
    "tousled": (Style((0.2, 0.5), (0.02, 0.12), (0.03, 0.1), "out", (0.005, 0.02), (0.8, 2.5)), 2.0),
    "fringe": (Style((0.35, 0.9), (0.2, 0.4), (0.015, 0.04), "forward"), 2.5),
    "tied": (Style((0.9, 1.5), (0.1, 0.25), (0.01, 0.025), "tied"), 2.0),
    "wet": (
        Style(
            (0.5, 1.3), (0.4, 0.7), (0.006, 0.015), "parted", (0.004, 0.012), (0.8, 2), (60, 250), (0.9, 0.97)
        ),
        2.0,
    ),
}


def person(scene: Scene, draws: Draws) -> None:
    """Add a head and shoulders with hair of one of :data:`STYLES`."""
    rng = draws.rng
    turn = rotation(
        UP, draws.uniform("facing", *((-np.pi, np.pi) if draws.chance("turned", 0.4) else (-0.6, 0.6)))
    )
    style_name = draws.choice("style", {name: share for name, (_, share) in STYLES.items()})
    colour, skin = colours.hair_colour(draws), colours.skin_colour(draws)
    parts = [*_face(draws, skin, colour), *_bust(draws, skin)]
    parts += _hair(draws, STYLES[style_name][0], colour, wet=style_name == "wet")
    if draws.chance("beard", 0.15):
        parts.append(_beard(draws, colour))
    for part in parts:
        scene.add(_turned(part, turn))
    reach = draws.uniform("reach", 0.62, 1.15)
    scene.centre = np.array([rng.uniform(-0.15, 0.15), 0, -reach * 0.45 + rng.uniform(-0.05, 0.2)])
    scene.reach = reach


def _turned(part: Strands | Surface, turn: Floats) -> Strands | Surface:
    if isinstance(part, Strands):
        return Strands(part.points @ turn.T, part.radius, part.tint, part.material)
    return Surface(part.vertices @ turn.T, part.faces, part.tint, part.material, part.opacity, part.smooth)


def _face(draws: Draws, skin: Floats, hair: Floats) -> list[Strands | Surface]:
    """Return the head, eyes, ears, brows and lashes."""
    rng = draws.rng
    u, v, quads = grid(161, 121)
    ball = ball_points(u, v)
    features = FEATURES * np.exp(rng.normal(0, 0.12, FEATURES.shape))
    vertices = _face_points(ball, features)
    front = np.clip(-ball[:, 1] * 3, 0, 1)
    lips = np.clip(_bumps(ball, LIPS * (1, 1, 1, 1, 0) + (0, 0, 0, 0, 1)), 0, 1) * front
    blush = (
        np.clip(_bumps(ball, np.array([(-0.5, -0.2, 0.2, 0.2, 1.0), (0.5, -0.2, 0.2, 0.2, 1.0)])), 0, 1)
        * front
    )
    mottled = 1 + 0.08 * scalar_noise(rng, 0.12, ball, octaves=3)[:, None]
    tint = skin * mottled * (1 - blush[:, None] * (0.0, 0.15, 0.15))
    tint = tint * (1 - lips[:, None]) + lips[:, None] * skin * draws.rng.uniform(
        (0.7, 0.25, 0.25), (1.0, 0.55, 0.6)
    )
    parts: list[Strands | Surface] = [
        Surface(vertices, quads, tint, Plain(draws.uniform("skin roughness", 0.35, 0.6)))
    ]
    for side in (-1, 1):
        parts += _eye(rng, side, features, hair)
        ear = Ellipsoid(
            np.array([side * 0.375, 0.05, -0.03]), np.array([0.03, 0.085, 0.12]), rotation(UP, side * 0.35)
        )
        parts.append(ear.surface(skin * (1, 0.85, 0.85), Plain(0.5)))
    return parts


def _face_points(ball: Floats, features: Floats) -> Floats:
    """Return the head's surface at points of the unit ball: a tapered jaw, and the features of the face."""
    jaw = 1 - 0.2 * np.clip(-ball[..., 2:], 0, 1) ** 1.5 * np.array([1.0, 0.35, 0.0])
    front = np.clip(-ball[..., 1] * 3, 0, 1)
    raised = 1 + (_bumps(ball, features) * front)[..., None] * (0.6, 1.0, 0.25)
    return np.asarray(ball * HEAD.radii * jaw * raised)


def _bumps(ball: Floats, features: Floats) -> Floats:
    """Return the sum of Gaussian bumps over x and z."""
    x, z, width, height, amount = features.T
    offsets = ((ball[..., 0, None] - x) / width) ** 2 + ((ball[..., 2, None] - z) / height) ** 2
    return np.asarray((amount * np.exp(-0.5 * offsets)).sum(-1))


def _on_face(x: Floats, z: Floats, features: Floats) -> Floats:
    """Return points of the face's front at x and z in units of the half axes."""
    ball = np.stack([x, -np.sqrt(np.maximum(1 - x**2 - z**2, 0.05)), z], -1)
    return _face_points(ball, features)


def _eye(rng: Random, side: int, features: Floats, hair: Floats) -> list[Strands | Surface]:
    """Return an eyeball with an iris, lids' lashes and a brow."""
    x, z = side * EYES[0], EYES[1]
    place = _on_face(np.array(x), np.array(z), features)
    u, v, quads = grid(49, 33)
    ball = ball_points(u, v)
    centre = place + np.array([0, 0.032, 0])
    aim = unit(np.array([rng.normal(0, 0.1), -1, rng.normal(-0.05, 0.1)]))
    off = np.arccos(np.clip(ball @ aim, -1, 1))[:, None]
    iris = np.where(rng.random() < 0.6, (0.08, 0.035, 0.012), (0.1, 0.18, 0.25))
    tint = np.where(off < 0.18, 0.004, np.where(off < 0.48, iris, 0.62))
    eyeball = Surface(centre + ball * 0.052, quads, tint, Plain(0.08))
    t = np.linspace(-1, 1, 40)
    lid = _on_face(x + 0.14 * t, z + 0.075 * (1 - t**2) + 0.01, features) - (0, 0.012, 0)
    lashes = bent(
        lid,
        unit(np.stack([0.25 * t, np.full(40, -1.0), np.full(40, 0.1)], -1)),
        rng.uniform(0.025, 0.045, 40),
        np.tile((0, 0, 0.7), (40, 1)),
        6,
    )
    brow = rng.uniform((-0.2, -0.03), (0.2, 0.03), (220, 2))
    roots = _on_face(x + brow[:, 0], z + 0.16 + brow[:, 1] - 1.3 * brow[:, 0] ** 2, features)
    brows = bent(
        roots,
        unit(np.tile((side * 0.9, -0.35, 0.3), (220, 1)) + rng.normal(0, 0.15, (220, 3))),
        rng.uniform(0.03, 0.06, 220),
        np.tile((0, 0.3, -0.3), (220, 1)),
        5,
    )
    return [
        eyeball,
        Strands(lashes, 0.0015 * taper(6, 0.2), np.full(3, 0.01), Hair()),
        Strands(brows, 0.0016 * taper(5, 0.3), colours.shades(rng, 0.6 * hair, 220, 0.2), Hair()),
    ]


def _bust(draws: Draws, skin: Floats) -> list[Strands | Surface]:
    """Return the neck and the clothed shoulders."""
    rng = draws.rng
    u, v, quads = grid(97, 90)
    height = BUST_HEIGHTS[0] + v * (BUST_HEIGHTS[-1] - BUST_HEIGHTS[0])
    # Averaging neighbours along the height rounds the corners of the profile.
    width, depth = (
        np.mean([np.interp(height + d, BUST_HEIGHTS, sizes) for d in (-0.06, -0.03, 0.0, 0.03, 0.06)], axis=0)
        for sizes in (BUST_WIDTHS, BUST_DEPTHS)
    )
    around = 2 * np.pi * u
    points = np.stack([width * np.cos(around), 0.05 + depth * np.sin(around), height], -1)
    collar = -0.8 - draws.uniform("neckline", 0, 0.25) * np.clip(-np.sin(around), 0, 1) ** 2
    folds = 0.012 * scalar_noise(rng, 0.25, points, octaves=2)[:, None]
    cloth = colours.vivid(rng)
    stripes = np.sin(height * draws.uniform("stripes", 20, 90)) > draws.uniform("stripe share", 0.0, 1.6)
    dyed = np.where(stripes[:, None], colours.vivid(rng), cloth) * (
        1 + 0.1 * scalar_noise(rng, 0.05, points)[:, None]
    )
    covered = (height < collar)[:, None]
    points = points * (1 + np.where(covered, 0.04 + folds, 0) * (1, 1, 0))
    return [
        Surface(
            points, quads, np.where(covered, dyed, skin), Plain(draws.uniform("cloth roughness", 0.5, 0.95))
        )
    ]


def _hair(draws: Draws, style: Style, colour: Floats, *, wet: bool) -> list[Strands | Surface]:
    """Return the strands of the head and, separately, the ones that fly away."""
    rng = draws.rng
    length = draws.uniform("length", *style.length)
    knot = np.array([0.0, 0.5, draws.uniform("knot", -0.15, 0.35)])
    roots, normals = _roots(rng, GUIDES)
    ways = _combed(draws, roots, normals, style.flow, knot)
    guides = _fallen(draws, style, roots, ways, length, knot)
    count = int(draws.log_uniform("strands", 7000, 20000))
    starts, _ = _roots(rng, count)
    strands = _between(rng, guides, starts, lump=0.03)
    strands = clump(
        rng, strands, draws.log_uniform("clump", *style.clumps), draws.uniform("tightness", *style.tightness)
    )
    curl = draws.uniform("curl", *style.curl)
    if curl > 0:
        strands = coil(rng, strands, curl, draws.uniform("turns", *style.turns) * length, lock=0.06)
    stray = rng.random(count) < draws.uniform("stray share", 0.01, 0.02 if wet else 0.1)
    wander = draws.log_uniform("frizz", 0.002, 0.008 if wet else 0.03)
    strands = frizz(rng, strands, np.where(stray, rng.uniform(2, 6, count), 1.0) * wander, waves=2.0)
    if not wet:
        strands[stray] += (
            along(GUIDE_POINTS) ** 1.5
            * unit(strands[stray, :1] + (0, 0, 0.3))
            * rng.uniform(0, 0.25, (stray.sum(), 1, 1))
        )
    strands = HEAD.pushed_out(strands, 0.012)
    radius = draws.log_uniform("radius", 0.0004, 0.0013)
    lighter = 1 + draws.uniform("lighter tips", -0.2, 0.7) * along(GUIDE_POINTS)
    tint = (
        colours.shades(rng, colour * (0.5 if wet else 1), count, draws.uniform("shades", 0.08, 0.3)) * lighter
    )
    material = Hair(
        draws.uniform("gloss", 0.08, 0.18) if wet else draws.uniform("roughness", 0.2, 0.45),
        0.8 if wet else draws.uniform("coat", 0, 0.25),
    )
    return [Strands(strands, radius * taper(GUIDE_POINTS, 0.35), tint, material), _cap(colour)]


def _cap(colour: Floats) -> Surface:
    """Return the scalp in the hair's colour, so that skin does not shine through thin hair."""
    u, v, quads = grid(65, 65)
    ball = ball_points(u, v)
    inside = _grows(ball)
    kept = quads[inside[quads].all(1)]
    return Surface(ball * HEAD.radii * 1.012, kept, 0.6 * colour, Plain(0.7))


def _grows(ball: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray(ball[..., 2] > np.interp(ball[..., 1], *HAIRLINE))


def _roots(rng: Random, count: int) -> tuple[Floats, Floats]:
    """Return points where hair grows, and the normals there."""
    roots, normals = HEAD.roots(rng, 3 * count)
    keep = _grows(roots / HEAD.radii + rng.normal(0, 0.02, roots.shape))
    return roots[keep][:count], normals[keep][:count]


def _combed(draws: Draws, roots: Floats, normals: Floats, flow: str, knot: Floats) -> Floats:
    """Return the directions in which hair leaves the head."""
    side = np.sign(roots[:, :1] - draws.uniform("parting", -0.15, 0.15))
    if flow == "parted":
        wanted = side * (1.0, 0, 0) + (0, 0.25, 0.0)
    elif flow == "tied":
        wanted = knot - roots
    elif flow == "forward":
        # Hair of the back and the sides falls down; only the top is combed over the face.
        back = np.clip(roots[:, 1:2] / 0.2 + 0.5, 0, 1)
        wanted = (1 - back) * (0, -1.0, -0.1) + back * (side * (0.6, 0, 0) + (0, 0.4, -0.3))
    else:
        wanted = np.tile((0, 1.0, 0.1) if flow == "back" else (0, 0, 0.2), (len(roots), 1))
    lift = draws.uniform("lift", 0.2, 0.8)
    return unit(unit(wanted) + normals * lift + draws.rng.normal(0, 0.08, roots.shape))


def _fallen(draws: Draws, style: Style, roots: Floats, ways: Floats, length: float, knot: Floats) -> Floats:
    """Let guides fall: each step bends towards the ground and the wind, and slides over the solids."""
    rng = draws.rng
    weight, volume = draws.uniform("weight", *style.weight), draws.uniform("volume", *style.volume)
    gust = np.array([rng.uniform(-1, 1), rng.uniform(-0.4, 0.4), rng.uniform(-0.1, 0.4)])
    gust = gust * (draws.uniform("wind", 0.05, 0.3) if draws.chance("windy", 0.3) else 0)
    # Hair is brushed out of the face, unless it is combed there.
    drift = np.array([0, 0.0 if style.flow == "forward" else draws.uniform("brushed back", 0.0, 0.3), 0])
    swirl, turbulence = Noise(rng, 0.5, 3), draws.uniform("turbulence", 0.03, 0.15)
    step = (length * rng.gamma(25, 1 / 25, len(roots)) / (GUIDE_POINTS - 1))[:, None]
    place, way = roots, ways
    line = [place]
    for number in range(GUIDE_POINTS - 1):
        if (
            style.flow == "tied" and number < 7
        ):  # the first steps run over the head to the knot, whatever the strand's length
            place = roots + (knot - roots) * (number + 1) / 7 + ways * 0.02
            way = unit(np.array([0, 0.8, 0.2]) + rng.normal(0, 0.25, roots.shape))
        else:
            way = unit(way - weight * UP + drift + gust + turbulence * swirl(place))
            place = place + way * step
        for solid, margin in ((HEAD, volume + 0.01), (NECK, 0.02), (SHOULDERS, 0.02)):
            place = solid.pushed_out(place, margin)
        line.append(place)
    return np.stack(line, 1)


def _between(rng: Random, guides: Floats, starts: Floats, lump: float) -> Floats:
    """Return strands from ``starts`` that run like the nearest guides, spread around them by ``lump``."""
    chosen = nearest(starts, guides[:, 0], 3)
    distance = np.linalg.norm(guides[chosen, 0] - starts[:, None], axis=-1) + 0.01
    weight = distance**-3.0 * np.exp(rng.normal(0, 0.5, distance.shape))
    weight /= weight.sum(1, keepdims=True)
    shape = np.einsum("ng,ngkx->nkx", weight, guides[chosen] - guides[chosen][:, :, :1])
    shape = shape * rng.gamma(40, 1 / 40, (len(starts), 1, 1))
    return np.asarray(
        starts[:, None] + shape + along(guides.shape[1]) * rng.normal(0, lump, (len(starts), 1, 3))
    )


def _beard(draws: Draws, colour: Floats) -> Strands:
    """Return short hair on the cheeks, lip and chin."""
    rng = draws.rng
    ball = directions(rng, 40000)
    x, y, z = ball.T
    where = (y < -0.15) & (z < -0.28 - 0.25 * np.exp(-((x / 0.35) ** 2))) & (z > -0.93)
    where |= (y < 0) & (np.abs(x) < 0.3) & (np.abs(z + 0.34) < 0.04)
    roots = _face_points(ball[where], FEATURES)
    count = len(roots)
    way = unit(roots / HEAD.radii + (0, 0, -0.8) + rng.normal(0, 0.25, roots.shape))
    lengths = draws.log_uniform("beard length", 0.02, 0.25) * rng.gamma(6, 1 / 6, count)
    strands = bent(roots, way, lengths, rng.normal(0, 0.3, (count, 3)) - 0.3 * UP, 8)
    strands = frizz(rng, clump(rng, strands, 8, 0.3), 0.006, 1.5)
    return Strands(strands, 0.0012 * taper(8, 0.3), colours.shades(rng, colour, count, 0.25), Hair())


def single_hairs(scene: Scene, draws: Draws) -> None:
    """Add a few hairs, thinner than a pixel, that stand off a solid: an edge under a magnifier."""
    rng = draws.rng
    body = Ellipsoid(np.array([0, 0.1, -1.4]), rng.uniform((0.6, 0.3, 0.7), (1.2, 0.6, 1.0)))
    colour = colours.hair_colour(draws)
    scene.add(body.surface(0.5 * colour + 0.02, Plain(0.7)))
    count = int(draws.log_uniform("hairs", 20, 900))
    roots, normals = body.roots(rng, 20 * count)
    upper = roots[:, 2] > body.centre[2] + 0.3 * body.radii[2]
    roots, normals = roots[upper][:count], normals[upper][:count]
    count = len(roots)
    lean = rng.normal(0, 0.5, 3) * (1, 0.3, 0.3)
    lengths = draws.uniform("length", 0.5, 1.6) * rng.gamma(4, 1 / 4, count)
    strands = bent(
        roots,
        unit(normals + lean + rng.normal(0, 0.3, roots.shape)),
        lengths,
        lean + rng.normal(0, 0.5, roots.shape) - 0.4 * UP,
        26,
    )
    strands = clump(rng, strands, 6, draws.uniform("tightness", 0, 0.7))
    strands = frizz(rng, strands, draws.log_uniform("frizz", 0.005, 0.08), draws.uniform("waves", 0.7, 3))
    if draws.chance("curls", 0.3):
        strands = coil(rng, strands, draws.uniform("curl", 0.01, 0.05), draws.uniform("turns", 2, 9), 0.3)
    radius = draws.log_uniform("radius", 0.0004, 0.0022)
    scene.add(
        Strands(
            strands,
            radius * taper(26, 0.4),
            colours.shades(rng, colour, count, 0.25),
            Hair(draws.uniform("roughness", 0.15, 0.4)),
        )
    )
    scene.centre, scene.reach = (
        np.array([0, 0, -0.35 + rng.uniform(-0.2, 0.2)]),
        draws.uniform("reach", 0.6, 1.1),
    )
