"""Colours of hair, skin, plants and fabrics: linear RGB, 0-1."""

from __future__ import annotations

import colorsys
from typing import cast

import numpy as np

from dim.arrays import Random
from dim_training.data.render.draws import Draws
from dim_training.data.render.vectors import Floats

HAIR = {
    "black": (0.012, 0.009, 0.008),
    "dark brown": (0.035, 0.02, 0.013),
    "brown": (0.085, 0.042, 0.022),
    "chestnut": (0.15, 0.06, 0.025),
    "red": (0.36, 0.11, 0.035),
    "dark blond": (0.28, 0.17, 0.08),
    "blond": (0.55, 0.37, 0.18),
    "platinum": (0.78, 0.66, 0.46),
    "gray": (0.27, 0.26, 0.25),
    "white": (0.8, 0.78, 0.74),
}
HAIR_SHARES = {
    "black": 4.0, "dark brown": 4.0, "brown": 4.0, "chestnut": 3.0, "red": 2.0, "dark blond": 3.0,
    "blond": 3.0, "platinum": 1.0, "gray": 0.8, "white": 0.6, "dyed": 1.5,
}  # fmt: skip
GREENS = np.array(
    [
        (0.03, 0.09, 0.015),
        (0.07, 0.17, 0.03),
        (0.14, 0.26, 0.05),
        (0.3, 0.36, 0.08),
        (0.42, 0.26, 0.05),
        (0.4, 0.08, 0.03),
    ]
)
GREEN_SHARES = np.array([3, 5, 4, 2, 1, 0.6])
STEM = np.array([0.12, 0.16, 0.05])


def vivid(rng: Random) -> Floats:
    """Return a colour of any hue, pale or saturated, dark or light."""
    saturation, value = rng.beta(1.6, 1.2), rng.uniform(0.04, 0.85)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


def hair_colour(draws: Draws, name: str = "hair") -> Floats:
    """Return a natural hair colour, varied a little, or now and then a dyed one."""
    kind = draws.choice(name, HAIR_SHARES)
    base = vivid(draws.rng) if kind == "dyed" else np.array(HAIR[kind])
    return np.clip(base * draws.rng.uniform(0.75, 1.3) * draws.rng.uniform(0.92, 1.08, 3), 0.004, 0.9)


def skin_colour(draws: Draws) -> Floats:
    """Return a skin colour between very dark and very fair."""
    fairness = draws.uniform("skin", 0, 1)
    tones = np.array([(0.04, 0.018, 0.01), (0.28, 0.13, 0.065), (0.68, 0.42, 0.31)])
    return np.array([np.interp(fairness, (0, 0.5, 1), channel) for channel in tones.T])


def leaf_colours(rng: Random, count: int) -> Floats:
    """Return count × 3 colours of the leaves of one plant."""
    shares = GREEN_SHARES / GREEN_SHARES.sum()
    base, other = GREENS[rng.choice(len(GREENS), 2, p=shares)]
    mix = rng.beta(0.6, 2.0, (count, 1))
    return cast(Floats, (base * (1 - mix) + other * mix) * rng.uniform(0.7, 1.35, (count, 1)))


def shades(rng: Random, base: Floats, count: int, spread: float) -> Floats:
    """Return count × 1 × 3 lighter and darker variants of a colour, one for each strand."""
    light = np.exp(rng.normal(0, spread, (count, 1, 1)))
    hue = np.exp(rng.normal(0, 0.25 * spread, (count, 1, 3)))
    return np.clip(base * light * hue, 0.003, 0.95)


def thread_colours(draws: Draws, count: int) -> Floats:
    """Return count × 1 × 3 colours of threads: one dyed colour, a few of them, or all different."""
    rng = draws.rng
    kind = draws.choice("threads", {"one": 3.0, "few": 3.0, "each": 2.0})
    palette = np.array([vivid(rng) for _ in range({"one": 1, "few": 4, "each": count}[kind])])
    base = palette[rng.integers(len(palette), size=count)][:, None]
    return shades(rng, base, count, draws.uniform("thread shades", 0.05, 0.4))
