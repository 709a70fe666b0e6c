"""Sources of foregrounds and backgrounds: drawn, or read from folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from dim.arrays import Random, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images import read_rgba
from dim_training.data import augmentation, transforms
from dim_training.data.files import image_files, read_rgb
from dim_training.data.procedural import canvas, shapes
from dim_training.data.transforms import Layers

SMALLEST_BACKGROUND = 16
"""Smallest side of a background, pixels: a window of it is a third as large, and must show something."""

LARGEST_BACKGROUND = 900
"""Largest side of a background that is kept in memory, pixels; crops never need more."""

SHOWN = 20
"""Problems listed in one error."""

MOST_LAYERS = 3
"""Foregrounds that a layered background shows at most."""

PLAIN = 0.85
"""Share of drawn foregrounds that are near one colour, as hair and fabric are."""

T = TypeVar("T")


class Cutout(NamedTuple):
    """A foreground with its alpha: ``colours`` uint8 H, W, 3 RGB; ``alpha`` uint8 H, W."""

    colours: UInt8
    alpha: UInt8


class Foregrounds(Protocol):
    """A source of foregrounds."""

    def draw(self, rng: Random) -> Cutout:
        """Return a foreground on a canvas of the source's size; all chance comes from ``rng``."""
        ...


class Backgrounds(Protocol):
    """A source of backgrounds."""

    def draw(self, side: int, rng: Random) -> UInt8:
        """Return RGB uint8 side × side."""
        ...


class ProceduralBackgrounds:
    """Colour fields with grain."""

    def draw(self, side: int, rng: Random) -> UInt8:
        return shapes.draw_colours(side, rng)


class PhotographBackgrounds:
    """Random windows, at random scale, of the photographs in a folder."""

    def __init__(self, root: Path) -> None:
        self.photographs = read_all(image_files(root), _read_background)

    def draw(self, side: int, rng: Random) -> UInt8:
        photograph = self.photographs[rng.integers(len(self.photographs))]
        height, width = photograph.shape[:2]
        window = int(min(height, width) * rng.uniform(0.3, 1.0))
        top, left = int(rng.integers(height - window + 1)), int(rng.integers(width - window + 1))
        cut = photograph[top : top + window, left : left + window]
        method = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
        square = cv2.resize(cut, (side, side), interpolation=method).astype(np.uint8, copy=False)
        return np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square


class LayeredBackgrounds:
    """Backgrounds of another source, with foregrounds before some of them."""

    def __init__(self, backgrounds: Backgrounds, foregrounds: Foregrounds, *, share: float) -> None:
        self.backgrounds, self.foregrounds, self.share = backgrounds, foregrounds, share

    def draw(self, side: int, rng: Random) -> UInt8:
        background = self.backgrounds.draw(side, rng)
        if rng.random() >= self.share:
            return background
        for _ in range(int(rng.integers(1, MOST_LAYERS + 1))):
            colours, alpha = _window(self.foregrounds.draw(rng), side, rng)
            mixed = transforms.composite(Layers(colours, background, alpha))
            background = np.round(mixed).astype(np.uint8)
        return background


class ProceduralForegrounds:
    """Procedural shapes, filled with colours of a background source, re-coloured so that they stand out."""

    def __init__(self, side: int, textures: Backgrounds) -> None:
        self.side = side
        self.textures = textures

    def draw(self, rng: Random) -> Cutout:
        alpha, tint = shapes.draw_shape(self.side, rng)
        textures = self.textures.draw(self.side, rng)
        colours = augmentation.apply_tone(textures, augmentation.draw_tone(rng, strength=2.0))
        if rng.random() < PLAIN:
            colours = _flatten(colours, rng)
        return Cutout(colours if tint is None else _tinted(colours, tint), alpha)


class CutoutForegrounds:
    """RGBA files of a folder, each placed at a random scale and angle on a transparent canvas."""

    def __init__(self, paths: Sequence[Path], *, side: int, tinted: bool) -> None:
        self.cutouts = read_all(paths, read_cutout)
        self.side = side
        self.tinted = tinted

    def draw(self, rng: Random) -> Cutout:
        cutout = self.cutouts[rng.integers(len(self.cutouts))]
        placed = _place(cutout, self.side, rng)
        if self.tinted:
            tint = rng.uniform(40, 256, 3)
            placed = placed._replace(colours=(placed.colours * (tint / 255)).astype(np.uint8))
        return placed


class Mixture:
    """Draws from one of several sources, each with its own probability."""

    def __init__(self, sources: Sequence[Foregrounds], weights: Sequence[float]) -> None:
        self.sources = sources
        self.probabilities = np.asarray(weights, np.float64) / np.sum(weights)

    def draw(self, rng: Random) -> Cutout:
        return self.sources[rng.choice(len(self.sources), p=self.probabilities)].draw(rng)


def read_all(paths: Sequence[Path], read: Callable[[Path], T]) -> list[T]:
    """Read every file; the ones that cannot be used are listed together, before any training starts.

    Raises:
        InputError: files that cannot be used.
    """
    found, problems = [], []
    for path in paths:
        try:
            found.append(read(path))
        except InputError as error:
            problems.append(f"{path}: {error.problem}, got {error.got}")
    if problems:
        shown = "\n    ".join(problems[:SHOWN])
        raise InputError(f"cannot use {len(problems)} of {len(paths)} files", why=f"\n    {shown}")
    return found


def _window(cutout: Cutout, side: int, rng: Random) -> Cutout:
    """Return a random square part of a cut-out's canvas, side × side; parts that are larger are reduced."""
    largest = min(cutout.alpha.shape)
    window = int(rng.integers(min(side, largest), largest + 1))
    top, left = (int(rng.integers(length - window + 1)) for length in cutout.alpha.shape)
    parts = tuple(layer[top : top + window, left : left + window] for layer in cutout)
    return Cutout(*(_reduced(part, side) for part in parts))


def _reduced(layer: UInt8, side: int) -> UInt8:
    return cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _flatten(colours: UInt8, rng: Random) -> UInt8:
    """Mix the colours with one plain colour."""
    plain = np.full_like(colours, rng.uniform(0, 256, 3).astype(np.uint8))
    share = float(rng.uniform(0.5, 0.95))
    return cv2.addWeighted(colours, 1 - share, plain, share, 0).astype(np.uint8, copy=False)


def _tinted(colours: UInt8, tint: UInt8) -> UInt8:
    """Return ``colours + tint − NEUTRAL``, saturated."""
    total = cv2.addWeighted(colours, 1, tint, 1, -canvas.NEUTRAL)
    return total.astype(np.uint8, copy=False)


def merge(front: Cutout, back: Cutout) -> Cutout:
    """Join two foregrounds, one before the other: α = 1 − (1 − α₁)(1 − α₂)."""
    a = front.alpha.astype(np.float32)[..., None] / 255
    b = back.alpha.astype(np.float32)[..., None] / 255
    alpha = a + b * (1 - a)
    colours = (front.colours * a + back.colours * b * (1 - a)) / np.maximum(alpha, 1e-3)
    # Where nothing is visible any colour is right; the front's keeps the borders smooth.
    colours = np.where(alpha > 1e-3, colours, front.colours)
    return Cutout(np.clip(colours, 0, 255).astype(np.uint8), np.round(255 * alpha[..., 0]).astype(np.uint8))


def _place(cutout: Cutout, side: int, rng: Random) -> Cutout:
    """Scale and turn a cut-out, and lay a random part of it on a side × side canvas."""
    height, width = cutout.alpha.shape
    smallest, largest = min(0.4 * side, max(height, width)), 1.6 * max(height, width)
    target = canvas.log_uniform(smallest, min(largest, 2.5 * side), rng)
    scale = target / max(height, width)
    colours, alpha = cutout
    if scale < 0.7:
        # Warping samples four pixels only: shrink with area averaging first.
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        colours = cv2.resize(colours, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        scale, (height, width) = 1.0, alpha.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, 15)), scale)
    slack = np.maximum(0, (np.array([width, height]) * scale - side) / 2) + 0.15 * side
    turn[:, 2] += side / 2 - np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * slack
    return Cutout(
        cv2.warpAffine(
            colours, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.uint8),
        cv2.warpAffine(alpha, turn, (side, side), flags=cv2.INTER_LINEAR).astype(np.uint8),
    )


def read_cutout(path: Path) -> Cutout:
    """Read an RGBA file, 8 bits; clear pixels get colours of opaque ones nearby.

    Raises:
        InputError: a file that cannot be used, or that shows nothing.
    """
    image = eight_bits(read_rgba(path))
    colours, alpha = np.ascontiguousarray(image[..., :3]), np.ascontiguousarray(image[..., 3])
    if not alpha.any():
        raise InputError(
            "cannot use a foreground that shows nothing", got="alpha 0 everywhere", expected="visible pixels"
        )
    return Cutout(_bleed(colours, alpha), alpha)


def _read_background(path: Path) -> UInt8:
    image = read_rgb(path)
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_BACKGROUND:
        raise InputError(
            "cannot use a background this small",
            got=f"{width}×{height} px",
            expected=f"at least {SMALLEST_BACKGROUND} px a side",
        )
    return _limit_size(image)


def _bleed(colours: UInt8, alpha: UInt8) -> UInt8:
    """Give clear pixels the colour of opaque ones nearby: scaling would mix their arbitrary colours in."""
    visible = (alpha > 8).astype(np.float32)[..., None]
    if visible.all() or not visible.any():
        return colours
    weighted, weights = colours * visible, visible[..., 0]
    sigma = max(2.0, 0.01 * max(alpha.shape))
    near = (
        cv2.GaussianBlur(weighted, (0, 0), sigma)
        / np.maximum(cv2.GaussianBlur(weights, (0, 0), sigma), 1e-4)[..., None]
    )
    return np.where(visible > 0, colours, np.clip(near, 0, 255)).astype(np.uint8)


def _limit_size(image: UInt8) -> UInt8:
    scale = LARGEST_BACKGROUND / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
