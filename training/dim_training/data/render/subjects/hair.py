"""Hair of people: combed, gathered, curled, wet or blown; and single hairs.

It is simulated as a few hundred guides, which fall and slide over the head, and strands between them.
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
from dim_training.data.render.vectors import UP, Floats, Noise, unit

HEAD = Ellipsoid(np.zeros(3), np.array([0.37, 0.46, 0.5]))
NECK = Ellipsoid(np.array([0.0, 0.05, -0.6]), np.array([0.17, 0.17, 0.5]))
SHOULDERS = Ellipsoid(np.array([0.0, 0.05, -1.3]), np.array([0.84, 0.38, 0.56]))
"""Solids that hair rests on; the face looks along −y."""

HAIRLINE = ((-1.0, -0.6, -0.1, 0.3, 1.0), (0.62, 0.5, 0.02, -0.35, -0.45))
"""Hair grows above this height, by depth: both in units of the head's half axes, the forehead at −1."""

GUIDES, GUIDE_POINTS = 350, 26
"""Number of guides, and of points of each guide and strand."""


@dataclass(frozen=True)
class Style:
    """Style of hair; a pair is the range from which each image draws a number.

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
"""Style by name, and its share of the images of people."""


def head_of_hair(draws: Draws, style: Style, colour: Floats, *, wet: bool) -> list[Strands | Surface]:
    """Return the strands of the head, some of which fly away, and the scalp under them."""
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
