"""Scenes: a foreground over a background, cut to the size that the network sees.

Every source is a function of (index, generator): it keeps no position, so a run can start anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dim.arrays import Float32, Random, UInt8
from dim.images import read_alpha
from dim_training.config import DataConfig
from dim_training.data import augmentation, transforms
from dim_training.data.annotations import Annotation
from dim_training.data.augmentation import Look
from dim_training.data.crowds import crowd
from dim_training.data.files import read_rgb
from dim_training.data.gaps import pierce
from dim_training.data.patches import patch
from dim_training.data.softening import soften
from dim_training.data.sources import Backgrounds, Cutout, Foregrounds, merge
from dim_training.data.transforms import Layer, Layers

MERGED = 0.15
"""Share of photometric samples that show two foregrounds, one before the other."""


class Scene(NamedTuple):
    """The layers of a sample and their composite.

    Attributes:
        layers: foreground, background and alpha, uint8 size × size.
        image: their composite as the network sees it, float32 size, size, 3, RGB 0-255.
        exponent: the power of values in which they were mixed (:func:`~.transforms.composite`).
    """

    layers: Layers
    image: Float32
    exponent: float = 1.0


class Parts(NamedTuple):
    """The parts of a scene: clean layers, and the changes of their look, or None."""

    layers: Layers
    look: Look | None


class Scenes(Protocol):
    """A source of scenes."""

    def draw(self, index: int, rng: Random) -> Scene:
        """Return the scene of global sample ``index``; all chance comes from ``rng``."""
        ...

    def parts(self, index: int, rng: Random) -> Parts:
        """Return the parts that :meth:`draw` would compose, for composition elsewhere."""
        ...


class ComposedScenes:
    """Foregrounds of one source over backgrounds of another, composed on line."""

    def __init__(self, foregrounds: Foregrounds, backgrounds: Backgrounds, config: DataConfig) -> None:
        self.foregrounds, self.backgrounds, self.config = foregrounds, backgrounds, config

    def draw(self, index: int, rng: Random) -> Scene:
        layers, look = self.parts(index, rng)
        if look is None:
            return Scene(layers, transforms.composite(layers))
        layers = augmentation.change_layers(layers, look)
        mixed = transforms.composite(layers, look.exponent)
        return Scene(layers, augmentation.photograph(mixed, look), look.exponent)

    def parts(self, index: int, rng: Random) -> Parts:
        cutout = self._cutout(rng)
        cut = transforms.crop_around_unknown(
            cutout.alpha, cutout.colours, sides=self.config.crop_sides, rng=rng
        )
        alpha, colours = transforms.resize(transforms.flip(cut, rng), self.config.size)
        background = self.backgrounds.draw(self.config.size, rng)
        # Nothing is drawn for recipes without it, whose samples stay the same.
        if self.config.softened and rng.random() < self.config.softened:
            colours, alpha = soften(Cutout(colours, alpha), rng)
        layers = Layers(colours, background, alpha)
        return Parts(layers, self._look(rng))

    def _look(self, rng: Random) -> Look | None:
        if not self.config.photometric:
            return None
        return augmentation.draw_look(rng, self.config.exponents, largest_noise=self.config.noise)

    def _cutout(self, rng: Random) -> Cutout:
        cutout = self.foregrounds.draw(rng)
        # Nothing is drawn for recipes without these changes, whose samples stay the same.
        if self.config.patched and rng.random() < self.config.patched:
            cutout = patch(cutout, rng)
        if self.config.crowded and rng.random() < self.config.crowded:
            cutout = crowd(cutout, rng)
        if self.config.pierced and rng.random() < self.config.pierced:
            cutout = pierce(cutout, rng)
        if self.config.photometric and rng.random() < MERGED:
            cutout = merge(cutout, self.foregrounds.draw(rng))
        return cutout


class AnnotatedScenes:
    """The images of an annotation list (Composition-1k), shuffled again for each pass.

    With ``config.online`` the composite is made here, in float32 and not rounded; otherwise the merged
    8-bit image is read from its file, as published.
    """

    def __init__(self, annotations: Sequence[Annotation], config: DataConfig, *, seed: int) -> None:
        self.annotations, self.config, self.seed = annotations, config, seed

    def draw(self, index: int, rng: Random) -> Scene:
        """Crop around an unknown pixel, flip and resize, in the published order."""
        annotation = self._annotation(index)
        alpha, foreground, background = _read_layers(annotation)
        if self.config.online:
            alpha, foreground, background, image = self._composed(alpha, foreground, background, rng)
        else:
            assert annotation.merged is not None
            merged = read_rgb(annotation.merged)
            alpha, foreground, background, image = self._crop(alpha, foreground, background, merged, rng=rng)
        cut = transforms.resize(
            transforms.flip((alpha, foreground, background, image), rng), self.config.size
        )
        return Scene(Layers(_u8(cut[1]), _u8(cut[2]), _u8(cut[0])), cut[3].astype(np.float32, copy=False))

    def parts(self, index: int, rng: Random) -> Parts:
        """Crop, flip and resize; composition comes last then, where the published order has it first."""
        alpha, foreground, background = self._crop(*_read_layers(self._annotation(index)), rng=rng)
        cut = transforms.resize(transforms.flip((alpha, foreground, background), rng), self.config.size)
        return Parts(Layers(_u8(cut[1]), _u8(cut[2]), _u8(cut[0])), None)

    def _composed(self, alpha: UInt8, foreground: UInt8, background: UInt8, rng: Random) -> tuple[Layer, ...]:
        """Compose before the crop, as published, or after it if nothing is enlarged: the same result."""
        if min(alpha.shape) < max(self.config.crop_sides):
            image = transforms.composite(Layers(foreground, background, alpha))
            return self._crop(alpha, foreground, background, image, rng=rng)
        alpha, foreground, background = map(_u8, self._crop(alpha, foreground, background, rng=rng))
        return alpha, foreground, background, transforms.composite(Layers(foreground, background, alpha))

    def _crop(self, alpha: Layer, *others: Layer, rng: Random) -> tuple[Layer, ...]:
        return transforms.crop_around_unknown(alpha, *others, sides=self.config.crop_sides, rng=rng)

    def _annotation(self, index: int) -> Annotation:
        epoch, place = divmod(index, len(self.annotations))
        return self.annotations[int(_permutation(self.seed, epoch, len(self.annotations))[place])]


def _read_layers(annotation: Annotation) -> tuple[UInt8, UInt8, UInt8]:
    """Return alpha, foreground and background."""
    return read_alpha(annotation.alpha), read_rgb(annotation.foreground), read_rgb(annotation.background)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, length)).permutation(length)


def _u8(layer: Layer) -> UInt8:
    return layer.astype(np.uint8, copy=False)
