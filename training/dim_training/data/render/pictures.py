"""Pictures for flat surfaces, drawn by OpenCV: walls, floors, foliage, shelves, posters; RGB uint8."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np

from dim.arrays import Random, UInt8
from dim_training.data.render import colours
from dim_training.data.render.develop import encode_srgb
from dim_training.data.render.draws import Draws
from dim_training.data.render.vectors import Floats

SIDE = 768
"""Pixels of a picture's side."""
LETTERS = "ABDEGHKMNORSTUVXaceghkmnorsuvxz0123456789&?%"
SPARE = 1.5
"""Cloths are drawn this much larger, so that a turn leaves no corner empty."""

Painter: TypeAlias = Callable[[Random], UInt8]


def draw_picture(draws: Draws, name: str) -> UInt8:
    """Draw a picture of a random kind, which is recorded under ``name``."""
    kind = draws.choice(name, {kind: share for kind, (_, share) in PAINTERS.items()})
    return _weathered(PAINTERS[kind][0](draws.rng), draws.rng)


def bricks(rng: Random) -> UInt8:
    """Draw bricks, planks or tiles with joints between them."""
    rows = int(rng.integers(5, 28))
    height = SIDE / rows
    width = height * rng.choice([1.0, 2.0, 3.0, 8.0])
    joint = max(1, round(height * rng.uniform(0.02, 0.12)))
    picture, base = _plain(rng), _level(rng)
    for row in range(rows):
        shift = float(rng.uniform(0, width)) if width > height else 0.0
        for left in np.arange(-shift, SIDE, width):
            corner = (round(left) + joint, round(row * height) + joint)
            opposite = (round(left + width), round((row + 1) * height))
            cv2.rectangle(picture, corner, opposite, _near(rng, base, 0.18), cv2.FILLED)
    return picture


def cloth(rng: Random) -> UInt8:
    """Draw stripes or a plaid, turned by a random angle."""
    side = round(SIDE * SPARE)
    lines = [_stripes(rng, side), _stripes(rng, side)]
    picture = np.broadcast_to(lines[0][None], (side, side, 3))
    if rng.random() < 0.6:
        picture = (picture.astype(np.uint16) + lines[1][:, None]) // 2
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(0, 360)), 1.0)
    turned = cv2.warpAffine(picture.astype(np.uint8), turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    first = (side - SIDE) // 2
    return np.ascontiguousarray(turned[first : first + SIDE, first : first + SIDE]).astype(np.uint8)


def leaves(rng: Random) -> UInt8:
    """Draw leaves upon leaves."""
    picture, count = _plain(rng), int(rng.integers(400, 3000))
    tints = _levels(colours.leaf_colours(rng, count))
    size = SIDE * np.exp(rng.uniform(np.log(0.01), np.log(0.06)))
    for tint in tints:
        axes = size * rng.uniform(0.5, 1.5) * np.array([1.0, rng.uniform(0.2, 0.6)])
        _ellipse(picture, rng, axes, tint)
    return picture


def stones(rng: Random) -> UInt8:
    """Draw pebbles or gravel, each with a light and a dark side."""
    picture, count = _plain(rng), int(rng.integers(300, 4000))
    base, size = _level(rng), 0.9 * SIDE / np.sqrt(count)
    for _ in range(count):
        axes = size * rng.uniform(0.4, 1.3) * np.array([1.0, rng.uniform(0.5, 1.0)])
        tint = np.array(_near(rng, base, 0.3))
        place, angle = _ellipse(picture, rng, axes, 0.5 * tint)
        lit, size_of_light = (place[0] - 1, place[1] - 1), _axes(0.8 * axes)
        cv2.ellipse(picture, lit, size_of_light, angle, 0, 360, _colour(tint), cv2.FILLED, cv2.LINE_AA)
    return picture


def blades(rng: Random) -> UInt8:
    """Draw thin lines side by side: grass, straw, fur or fabric."""
    picture, base, count = _plain(rng), _level(rng), int(rng.integers(1000, 5000))
    way, spread = rng.uniform(0, np.pi), rng.uniform(0.02, 0.9)
    length, width = SIDE * rng.uniform(0.04, 0.3), int(rng.integers(1, 4))
    starts, ways = rng.uniform(0, SIDE, (count, 2)), rng.normal(way, spread, count)
    ends = starts + length * np.stack([np.cos(ways), np.sin(ways)], -1)
    for start, end in zip(starts.astype(int).tolist(), ends.astype(int).tolist(), strict=True):
        cv2.line(picture, start, end, _near(rng, base, 0.35), width, cv2.LINE_AA)
    return picture


def books(rng: Random) -> UInt8:
    """Draw shelves of books, or the windows of a house: upright boxes in rows."""
    picture, rows = _plain(rng), int(rng.integers(2, 9))
    height, left = SIDE // rows, 0
    for row in range(rows):
        left = -int(rng.integers(20))
        while left < SIDE:
            width = int(rng.integers(4, max(6, height // 3)))
            top = row * height + int(rng.integers(2, max(3, height // 4)))
            bottom, tint = (row + 1) * height - 4, _level(rng)
            cv2.rectangle(picture, (left, top), (left + width, bottom), _colour(tint), cv2.FILLED)
            band = top + int(rng.integers(2, max(3, height // 2)))
            opposite = (left + width - 1, band + 3)
            cv2.rectangle(picture, (left + 1, band), opposite, _colour(_level(rng)), cv2.FILLED)
            left += width + int(rng.integers(0, 4))
    return picture


def poster(rng: Random) -> UInt8:
    """Draw shapes and letters of many sizes."""
    picture = _plain(rng)
    for _ in range(int(rng.integers(6, 60))):
        size = SIDE * float(np.exp(rng.uniform(np.log(0.02), np.log(0.3))))
        tint, place = _colour(_level(rng)), _place(rng)
        kind = rng.integers(4)
        if kind == 0:
            _ellipse(picture, rng, np.array([size, size * rng.uniform(0.3, 1)]), np.array(tint))
        elif kind == 1:
            corners = (np.array(place) + rng.normal(0, size, (int(rng.integers(3, 7)), 2))).astype(np.int32)
            cv2.fillPoly(picture, [corners], tint, cv2.LINE_AA)
        elif kind == 2:
            end = (np.array(place) + rng.normal(0, 2 * size, 2).astype(int)).tolist()
            cv2.line(picture, place, end, tint, max(1, round(0.1 * size)), cv2.LINE_AA)
        else:
            word = "".join(rng.choice(list(LETTERS), int(rng.integers(1, 14))))
            font, pen = int(rng.integers(8)), max(1, round(size / 14))
            cv2.putText(picture, word, place, font, size / 40, tint, pen, cv2.LINE_AA)
    return picture


def clouds(rng: Random) -> UInt8:
    """Draw soft fields of a few colours: marble, plaster, sky."""
    field = np.zeros((SIDE, SIDE), np.float32)
    cells = int(rng.integers(2, 9))
    for octave in range(6):
        grid = rng.normal(size=(cells * 2**octave + 1, cells * 2**octave + 1)).astype(np.float32)
        field += cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 2**octave
    knots = np.stack([_level(rng) for _ in range(int(rng.integers(2, 5)))]).astype(np.float64)
    ranks = (field - field.min()) / np.ptp(field) * (len(knots) - 1)
    tinted = [np.interp(ranks, np.arange(len(knots)), knots[:, channel]) for channel in range(3)]
    return np.stack(tinted, -1).astype(np.uint8)


PAINTERS: dict[str, tuple[Painter, float]] = {
    "bricks": (bricks, 2.0),
    "cloth": (cloth, 1.0),
    "leaves": (leaves, 1.5),
    "stones": (stones, 1.0),
    "blades": (blades, 1.5),
    "books": (books, 1.5),
    "poster": (poster, 1.5),
    "clouds": (clouds, 2.0),
}
"""Kinds of pictures, and the share of each."""


def _weathered(picture: UInt8, rng: Random) -> UInt8:
    """Vary the brightness slowly, and add grain."""
    grid = rng.uniform(0.7, 1.1, (5, 5)).astype(np.float32)
    light = cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
    grain = rng.normal(0, rng.uniform(0, 14), (SIDE, SIDE, 1)).astype(np.float32)
    return np.asarray(np.clip(picture * light + grain, 0, 255), np.uint8)


def _stripes(rng: Random, side: int) -> UInt8:
    """Return the colours along one line, side × 3: a sequence of bands that repeats."""
    bands = int(rng.integers(2, 7))
    widths = np.maximum(1, (rng.uniform(0.1, 1, bands) * side / rng.uniform(6, 60)).astype(int))
    sequence = np.repeat(np.stack([_level(rng) for _ in range(bands)]), widths, 0)
    return np.resize(sequence, (side, 3))


def _ellipse(
    picture: UInt8, rng: Random, axes: Floats, tint: Floats | UInt8
) -> tuple[tuple[int, int], float]:
    """Fill an ellipse at a random place and angle, and return both."""
    place, angle = _place(rng), float(rng.uniform(0, 180))
    cv2.ellipse(picture, place, _axes(axes), angle, 0, 360, _colour(tint), cv2.FILLED, cv2.LINE_AA)
    return place, angle


def _place(rng: Random) -> tuple[int, int]:
    x, y = rng.integers(0, SIDE, 2).tolist()
    return x, y


def _axes(axes: Floats) -> tuple[int, int]:
    return max(1, round(float(axes[0]))), max(1, round(float(axes[1])))


def _plain(rng: Random) -> UInt8:
    return np.tile(_level(rng), (SIDE, SIDE, 1))


def _level(rng: Random) -> UInt8:
    """Return one colour, uint8 3."""
    return _levels(colours.vivid(rng))


def _levels(linear: Floats) -> UInt8:
    return np.round(255 * encode_srgb(linear)).astype(np.uint8)


def _near(rng: Random, base: UInt8, spread: float) -> tuple[int, int, int]:
    """Return a lighter or darker variant of a colour."""
    factors = np.exp(rng.normal(0, spread) + rng.normal(0, 0.3 * spread, 3))
    return _colour(np.clip(base * factors, 0, 255))


def _colour(tint: Floats | UInt8) -> tuple[int, int, int]:
    """Return a colour as OpenCV takes it."""
    red, green, blue = map(int, tint)
    return red, green, blue
