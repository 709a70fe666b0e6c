"""Training samples: a foreground from one of the sources over a background, cut, composed and given a trimap.

Every sample's random numbers derive from (seed, global index) alone, so a run that is resumed, or spread
over several processes, sees the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dim import trimap as trimaps
from dim.contract import IMAGE_MEAN, IMAGE_STD
from dim.errors import InputError
from dim_training import synthetic, transforms
from dim_training.config import DataConfig
from dim_training.transforms import Array, Layers, Random, UInt8

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_LARGEST_BACKGROUND = 900
"""Backgrounds are kept in memory at most this large; crops never need more."""


class Cutout(NamedTuple):
    """A foreground with its alpha: ``colours`` uint8 H, W, 3 RGB; ``alpha`` uint8 H, W."""

    colours: UInt8
    alpha: UInt8


class Foregrounds(Protocol):
    """A source of foregrounds."""

    def draw(self, rng: Random) -> Cutout: ...


class Backgrounds(Protocol):
    """A source of backgrounds."""

    def draw(self, side: int, rng: Random) -> UInt8:
        """RGB uint8 side × side."""
        ...


class ProceduralBackgrounds:
    """Colour fields with grain."""

    def draw(self, side: int, rng: Random) -> UInt8:
        return synthetic.draw_colours(side, rng)


class PhotographBackgrounds:
    """Random windows, at random scale, of the photographs in a folder."""

    def __init__(self, root: Path) -> None:
        self.photographs = [_limit_size(_read_rgb(path)) for path in image_files(root)]

    def draw(self, side: int, rng: Random) -> UInt8:
        photograph = self.photographs[rng.integers(len(self.photographs))]
        height, width = photograph.shape[:2]
        window = int(min(height, width) * rng.uniform(0.3, 1.0))
        top, left = int(rng.integers(height - window + 1)), int(rng.integers(width - window + 1))
        cut = photograph[top : top + window, left : left + window]
        method = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
        square = cv2.resize(cut, (side, side), interpolation=method).astype(np.uint8, copy=False)
        return np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square


class ProceduralForegrounds:
    """Procedural shapes, filled with colours of a background source, re-coloured so that they stand out."""

    def __init__(self, side: int, textures: Backgrounds) -> None:
        self.side = side
        self.textures = textures

    def draw(self, rng: Random) -> Cutout:
        alpha = synthetic.draw_alpha(self.side, rng)
        colours = transforms.jitter_colours(self.textures.draw(self.side, rng), rng, strength=2.0)
        if rng.random() < 0.5:
            colours = _flatten(colours, rng)
        return Cutout(colours, alpha)


class CutoutForegrounds:
    """RGBA files of a folder, each placed at a random scale and angle on a transparent canvas."""

    def __init__(self, paths: Sequence[Path], *, side: int, tinted: bool) -> None:
        self.cutouts = [_read_cutout(path) for path in paths]
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


class Sample(NamedTuple):
    """One training sample, or a batch of them with N in front.

    Attributes:
        network_input: float32 4, H, W: normalised RGB of the composite, trimap / 255.
        alpha: float32 1, H, W in 0-1.
        foreground, background, image: float32 3, H, W in 0-1.
        unknown: float32 1, H, W: 1 on unknown pixels.
    """

    network_input: Tensor
    alpha: Tensor
    foreground: Tensor
    background: Tensor
    image: Tensor
    unknown: Tensor


class CompositionDataset(Dataset[Sample]):
    """On-line composition: item i is a function of (seed, i)."""

    def __init__(
        self,
        foregrounds: Foregrounds,
        backgrounds: Backgrounds,
        config: DataConfig,
        *,
        seed: int,
        length: int,
    ) -> None:
        self.foregrounds, self.backgrounds, self.config = foregrounds, backgrounds, config
        self.seed, self.length = seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        layers = self._layers(rng)
        image = transforms.composite(layers)
        if self.config.photometric:
            image = transforms.camera_noise(image, rng)
        trimap = transforms.random_trimap(layers.alpha, self.config.trimap_sizes, rng)
        return to_sample(layers, image, trimap)

    def _layers(self, rng: Random) -> Layers:
        cutout = self._cutout(rng)
        cut = transforms.crop_around_unknown(
            cutout.alpha, cutout.colours, sides=self.config.crop_sides, rng=rng
        )
        alpha, colours = transforms.resize(transforms.flip(cut, rng), self.config.size)
        background = self.backgrounds.draw(self.config.size, rng)
        if self.config.photometric:
            colours = transforms.jitter_colours(colours, rng, strength=0.7)
            background = transforms.jitter_colours(background, rng)
            if rng.random() < 0.45:
                background = transforms.defocus(background, rng)
        return Layers(colours, background, alpha)

    def _cutout(self, rng: Random) -> Cutout:
        cutout = self.foregrounds.draw(rng)
        if self.config.photometric and rng.random() < 0.15:
            cutout = _merge(cutout, self.foregrounds.draw(rng))
        return cutout


class GlobalOrder(torch.utils.data.Sampler[int]):
    """Sample indices in order from ``first``: the position of a run is the number of samples it has seen."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.end))

    def __len__(self) -> int:
        return self.end - self.first


def build_dataset(config: DataConfig, *, seed: int, length: int) -> CompositionDataset:
    """The data set that a configuration describes; reads and checks every file of it."""
    canvas = max(config.crop_sides) + config.size // 2
    if config.kind == "procedural":
        backgrounds: Backgrounds = ProceduralBackgrounds()
        foregrounds: Foregrounds = ProceduralForegrounds(canvas, backgrounds)
        return CompositionDataset(foregrounds, backgrounds, config, seed=seed, length=length)
    if config.root is None:
        raise InputError(
            "cannot build the data set", got="data.kind=rgba without a folder", fix="--set data.root=FOLDER"
        )
    backgrounds = PhotographBackgrounds(config.root / "backgrounds")
    cutouts = _cutout_sources(config.root / "foregrounds", config, canvas)
    foregrounds = Mixture(
        [*cutouts[0], ProceduralForegrounds(canvas, backgrounds)],
        [*((1 - config.procedural) * np.asarray(cutouts[1]) / np.sum(cutouts[1])), config.procedural],
    )
    return CompositionDataset(foregrounds, backgrounds, config, seed=seed, length=length)


def _cutout_sources(root: Path, config: DataConfig, canvas: int) -> tuple[list[Foregrounds], list[float]]:
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    unknown = set(config.weights) | set(config.tinted)
    unknown -= {folder.name for folder in folders}
    if unknown:
        raise InputError(
            f"cannot find the foreground folders {', '.join(sorted(unknown))}",
            got=", ".join(folder.name for folder in folders) or f"no folders in {root}",
        )
    sources: list[Foregrounds] = [
        CutoutForegrounds(image_files(folder), side=canvas, tinted=folder.name in config.tinted)
        for folder in folders or [root]
    ]
    return sources, [config.weights.get(folder.name, 1.0) for folder in folders or [root]]


def image_files(root: Path) -> list[Path]:
    """Every image below a folder, sorted; none is an error."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"cannot find images in {root}", got="none" if root.is_dir() else "no such folder")
    return found


def to_sample(layers: Layers, image: Array, trimap: UInt8) -> Sample:
    """Tensors of the cut layers, the composite (float32 0-255) and the trimap."""
    normalised = (image - np.asarray(IMAGE_MEAN, np.float32)) / np.asarray(IMAGE_STD, np.float32)
    network_input = np.concatenate([normalised, trimap[..., None].astype(np.float32) / 255], axis=2)
    return Sample(
        _planes(network_input),
        _planes(layers.alpha[..., None]) / 255,
        _planes(layers.foreground) / 255,
        _planes(layers.background) / 255,
        _planes(image) / 255,
        torch.from_numpy((trimap == trimaps.UNKNOWN).astype(np.float32))[None],
    )


def _planes(array: Array | UInt8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), np.float32))


def _flatten(colours: UInt8, rng: Random) -> UInt8:
    """Towards one colour: hair and fabric are much plainer than photographs."""
    plain = np.full_like(colours, rng.uniform(0, 256, 3).astype(np.uint8))
    share = float(rng.uniform(0.5, 0.95))
    return cv2.addWeighted(colours, 1 - share, plain, share, 0).astype(np.uint8, copy=False)


def _merge(front: Cutout, back: Cutout) -> Cutout:
    """Two foregrounds, one before the other, as one: α = 1 − (1 − α₁)(1 − α₂)."""
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
    target = float(np.exp(rng.uniform(np.log(smallest), np.log(min(largest, 2.5 * side)))))
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


def _read_cutout(path: Path) -> Cutout:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise InputError(
            f"cannot use the cut-out {path}", got="no RGBA image", expected="a PNG with an alpha channel"
        )
    image = image if image.dtype == np.uint8 else (image / 257).astype(np.uint8)
    colours = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB).astype(np.uint8, copy=False)
    alpha = np.ascontiguousarray(image[..., 3], np.uint8)
    return Cutout(_bleed(colours, alpha), alpha)


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


def _read_rgb(path: Path) -> UInt8:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"cannot read the background {path}", got="not an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _limit_size(image: UInt8) -> UInt8:
    scale = _LARGEST_BACKGROUND / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
