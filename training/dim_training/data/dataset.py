"""Training samples: a scene and a random trimap of it, as tensors.

Every sample's random numbers derive from (seed, global index) alone, so a run that is resumed, or spread
over several processes, sees the same samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from dim import trimap as trimaps
from dim.arrays import Float32, Random, UInt8
from dim.errors import InputError
from dim.images.files import READABLE
from dim.images.folders import SYSTEM_FOLDER
from dim.network import normalise
from dim_training.config import DataConfig
from dim_training.data import transforms
from dim_training.data.annotations import read as read_annotations
from dim_training.data.files import image_files
from dim_training.data.scenes import AnnotatedScenes, ComposedScenes, Scene, Scenes
from dim_training.data.sources import (
    CutoutForegrounds,
    Foregrounds,
    LayeredBackgrounds,
    Mixture,
    PhotographBackgrounds,
    ProceduralBackgrounds,
    ProceduralForegrounds,
)

T = TypeVar("T")


class Sample(NamedTuple):
    """One training sample, or a batch of them with N in front.

    Attributes:
        network_input: float32 4, H, W: normalised RGB of the composite, trimap / 255.
        alpha: float32 1, H, W in 0-1.
        foreground, background, image: float32 3, H, W in 0-1, raised to the power in which they were mixed.
        unknown: float32 1, H, W: 1 on unknown pixels.
    """

    network_input: Tensor
    alpha: Tensor
    foreground: Tensor
    background: Tensor
    image: Tensor
    unknown: Tensor


class SceneDataset(Dataset[T], ABC, Generic[T]):
    """Base of the data sets: item i is a function of (seed, i).

    Args:
        scenes: the source of scenes.
        trimap_sizes: smallest and largest side of the elements that make a trimap, pixels.
        seed: the run's.
        length: number of items.
    """

    def __init__(self, scenes: Scenes, trimap_sizes: tuple[int, int], *, seed: int, length: int) -> None:
        self.scenes, self.trimap_sizes, self.seed, self.length = scenes, trimap_sizes, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> T:
        return self.draw(index, np.random.default_rng((self.seed, index)))

    @abstractmethod
    def draw(self, index: int, rng: Random) -> T:
        """Return item ``index``; all chance comes from ``rng``."""


class MattingDataset(SceneDataset[Sample]):
    """Finished samples."""

    def draw(self, index: int, rng: Random) -> Sample:
        scene = self.scenes.draw(index, rng)
        return to_sample(scene, transforms.random_trimap(scene.layers.alpha, self.trimap_sizes, rng))


class GlobalOrder(Sampler[int]):
    """The samples of one process, in order: ``first``, ``first + step``, … below ``end``.

    The position of a run is the number of samples that all its processes have seen; sample i belongs to
    process i mod N.
    """

    def __init__(self, first: int, end: int, step: int = 1) -> None:
        self.indices = range(first, end, step)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def build_dataset(config: DataConfig, *, seed: int, length: int) -> MattingDataset:
    """Build the data set of a configuration; every file that it needs is checked first."""
    return MattingDataset(build_scenes(config, seed), config.trimap_sizes, seed=seed, length=length)


def build_scenes(config: DataConfig, seed: int) -> Scenes:
    """Build the source of scenes of a configuration; every file that it needs is checked first.

    Raises:
        InputError: no folder, or files that are missing or cannot be used.
    """
    if config.kind == "procedural":
        backgrounds = ProceduralBackgrounds()
        return ComposedScenes(ProceduralForegrounds(_canvas(config), backgrounds), backgrounds, config)
    root = config.root
    if root is None:
        raise InputError(
            "cannot build the data set",
            got=f"data.kind={config.kind} without a folder",
            fix="--set data.root=FOLDER",
        )
    if config.kind == "comp1k":
        path = config.annotations or root / "training_list.json"
        found = read_annotations(path, root, composed=not config.online)
        return AnnotatedScenes(found, config, seed=seed)
    return _cutout_scenes(config, root)


def _cutout_scenes(config: DataConfig, root: Path) -> Scenes:
    backgrounds = PhotographBackgrounds(root / "backgrounds")
    sources, weights = _cutout_sources(root / "foregrounds", config)
    shares = (1 - config.procedural) * np.asarray(weights) / np.sum(weights)
    drawn = ProceduralForegrounds(_canvas(config), backgrounds)
    foregrounds = Mixture([*sources, drawn], [*shares, config.procedural])
    if config.layered:
        layered = LayeredBackgrounds(backgrounds, Mixture(sources, weights), share=config.layered)
        return ComposedScenes(foregrounds, layered, config)
    return ComposedScenes(foregrounds, backgrounds, config)


def _canvas(config: DataConfig) -> int:
    """Return the side of the canvas of foregrounds: the largest crop, and room to choose its place."""
    return max(config.crop_sides) + config.size // 2


def _cutout_sources(root: Path, config: DataConfig) -> tuple[Sequence[Foregrounds], list[float]]:
    folders = _foreground_folders(root)
    unknown = (set(config.weights) | set(config.tinted)) - {folder.name for folder in folders}
    if unknown:
        raise InputError(
            f"cannot find the foreground folders {', '.join(sorted(unknown))}",
            got=", ".join(folder.name for folder in folders) or f"no folders in {root}",
            why="the recipe names them in data.weights and data.tinted",
            fix="the recipe own, or --set data.weights=none data.tinted=none",
        )
    sources = [
        CutoutForegrounds(image_files(folder), side=_canvas(config), tinted=folder.name in config.tinted)
        for folder in folders or [root]
    ]
    weights = [config.weights.get(folder.name, 1.0) for folder in folders or [root]]
    if not any(weights):
        raise InputError(
            "cannot draw foregrounds",
            got="a weight of 0 for every folder",
            expected="a positive one in data.weights",
        )
    return sources, weights


def _foreground_folders(root: Path) -> list[Path]:
    """Return the sub-folders of ``foregrounds/``; none if its files lie in it directly."""
    visible = (
        [path for path in sorted(root.iterdir()) if not path.name.startswith(".")] if root.is_dir() else []
    )
    folders = [path for path in visible if path.is_dir() and path.name != SYSTEM_FOLDER]
    loose = [path.name for path in visible if path.is_file() and path.suffix.lower() in READABLE]
    if folders and loose:
        raise InputError(
            f"cannot use {root}: it holds image files and folders",
            got=f"{len(loose)} files, among them {loose[0]}, beside {folders[0].name}/",
            expected="either files or folders of files",
            why="each folder is one source with one weight",
            fix="move the files into a folder",
        )
    return folders


def to_sample(scene: Scene, trimap: UInt8) -> Sample:
    """Return the tensors of a scene and its trimap, uint8 H, W."""
    layers, image, exponent = scene
    colours, known = _planes(image), torch.from_numpy(trimap)
    return Sample(
        normalise(colours[None], known[None, None])[0],
        torch.from_numpy(layers.alpha)[None].float() / 255,
        power(_planes(layers.foreground) / 255, exponent),
        power(_planes(layers.background) / 255, exponent),
        power(colours / 255, exponent),
        (known == trimaps.UNKNOWN)[None].float(),
    )


def power(values: Tensor, exponent: float | Tensor) -> Tensor:
    """Return values in 0-1 raised to a power; 1 returns the same bits."""
    return values**exponent


def _planes(image: Float32 | UInt8) -> Tensor:
    """Convert H, W, 3 in 0-255 to float32 3, H, W; copying plane by plane is several times faster."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous().float()
