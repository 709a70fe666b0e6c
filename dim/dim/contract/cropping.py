"""Crops of an exported graph: margins of a window that further layers do not need are dropped.

A window carries context on each side of its core, because the encoder needs it. The decoder needs less with
each level. So an exported graph holds a Slice before each unpooling, one for the values that are unpooled
("features") and one for the places of the maxima ("switches"), and one for image and trimap, which colour
cues and refiner read. Colour cues read more around a pixel than the convolutions of the refiner, so where
there are cues another Slice follows them. The starts and ends of all are initialisers with which nothing is
dropped: the file computes whole windows in every engine. The runtime makes inputs of these initialisers when
it opens the file.

Levels count from 1, half the image's side, to 5, a 32nd of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dim.contract.config import NetworkConfig, cue_cell
from dim.contract.layers import LEVELS, PIXEL_BLOCK, kept_margins, refined_margin

ENDLESS = 2**24
"""The end of a slice that drops nothing: more pixels than a side of any image has, and few enough that
engines can multiply it."""
IMAGE_CROP = "crop_image"
"""Name of the crop of image and trimap."""
LEAST_STEP = 8
"""Pixels: margins are multiples of it, or of the side of a network's cells where that is larger. On full-size
trimaps, at context 64, it saves 1.8 % of the work of cores that are whole blocks; 16 pixels save 1.1 %."""
REFINER_CROP = "crop_refiner"
"""Name of the crop of what the refiner's convolutions read and of what is added to their output."""


class Margins(NamedTuple):
    """Pixels of a window on each side of its core; multiples of :func:`margin_step`."""

    top: int
    left: int
    bottom: int
    right: int

    def less(self, others: Margins) -> Margins:
        """Return how much wider these margins are than others, side by side."""
        return Margins(*(mine - other for mine, other in zip(self, others, strict=True)))


NO_MARGINS = Margins(0, 0, 0, 0)
"""The core is the whole window."""


class Crop(NamedTuple):
    """Rows and columns that a Slice drops: top and left from the start, bottom and right from the end."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def starts(self) -> tuple[int, int]:
        """The Slice's starts: row and column."""
        return self.top, self.left

    @property
    def ends(self) -> tuple[int, int]:
        """The Slice's ends: row and column, negative numbers from the end."""
        return -self.bottom or ENDLESS, -self.right or ENDLESS


def features_crop(level: int) -> str:
    """Return the name of the crop of the values that are unpooled at a level."""
    return f"crop_features_{level}"


def switches_crop(level: int) -> str:
    """Return the name of the crop of the places of the maxima at a level."""
    return f"crop_switches_{level}"


def starts_and_ends(name: str) -> tuple[str, str]:
    """Return the names of the initialisers of a crop's starts and ends; int64, shape 2: row, column."""
    return f"{name}_starts", f"{name}_ends"


def crop_names(config: NetworkConfig) -> Iterator[str]:
    """Yield the names of all crops of a network's graph."""
    yield IMAGE_CROP
    if refined_margin(config) < 2 * kept_margins(config)[0]:
        yield REFINER_CROP
    for level in range(1, LEVELS + 1):
        yield features_crop(level)
        yield switches_crop(level)


def crops(config: NetworkConfig, margins: Margins) -> dict[str, Crop]:
    """Return what each Slice drops for a window with these margins, by the names of the crops."""
    sides = [_side_crops(config, margin) for margin in margins]
    return {name: Crop(*(side[name] for side in sides)) for name in crop_names(config)}


def output_margin(config: NetworkConfig) -> int:
    """Return the pixels that a graph's output has on each side of the core, at most.

    Their own alpha has less context than the core's.
    """
    return refined_margin(config)


def output_margins(config: NetworkConfig, margins: Margins) -> Margins:
    """Return the pixels that a graph's output has on each side of the core."""
    return Margins(*(min(margin, output_margin(config)) for margin in margins))


def margin_step(config: NetworkConfig) -> int:
    """Return the pixels of which margins are multiples: blocks and cells of the image are never cut."""
    return max([LEAST_STEP, PIXEL_BLOCK, *map(cue_cell, config.cue_radii)])


def _side_crops(config: NetworkConfig, margin: int) -> dict[str, int]:
    assert margin % margin_step(config) == 0, "a window's margins are multiples of their step"
    found: dict[str, int] = {}
    arriving, needed = margin >> LEVELS, kept_margins(config)
    for level in range(LEVELS, 0, -1):
        kept = min(margin >> level, needed[level - 1])
        found[features_crop(level)] = arriving - kept
        found[switches_crop(level)] = (margin >> level) - kept
        # The unpooling doubles the side. A core may begin within a value of a level, which is kept whole.
        arriving = 2 * kept + (margin >> (level - 1)) % 2
    return {
        **found,
        IMAGE_CROP: margin - arriving,
        REFINER_CROP: arriving - min(arriving, refined_margin(config)),
    }
