"""Scenes to validate and test with: foregrounds of exact alpha over backgrounds, as folders of pairs."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from dim.arrays import Random, UInt8
from dim.errors import InputError
from dim.files import write_bytes
from dim.images.folders import name_of
from dim_training.data import augmentation, transforms
from dim_training.data.files import image_files
from dim_training.data.sources import PhotographBackgrounds, read_cutout
from dim_training.data.transforms import Layers

NARROW, WIDE = (2, 25), (25, 61)
"""Smallest and largest side, pixels, of the elements that make trimaps/ and trimaps_wide/."""


def compose_scenes(foregrounds: Path, backgrounds: Path, output: Path, *, seed: int = 0) -> int:
    """Write a scene for each foreground, and return how many there are.

    Colours, background, defocus, noise and trimaps are drawn by the seed and the foreground's name, as
    training draws them; there are no JPEG artefacts. Another set of backgrounds gives other scenes.

    Args:
        foregrounds: folder of RGBA files.
        backgrounds: folder of images.
        output: gets images/, trimaps/, trimaps_wide/ and alphas/, as PNG files of equal names.

    Raises:
        InputError: a folder without images, files that cannot be used, or an output that has scenes.
    """
    if (output / "images").exists():
        raise InputError(
            f"cannot compose scenes in {output}",
            got="a folder that has images/",
            expected="a new folder",
            why="scenes of other foregrounds would stay among the new ones",
        )
    photographs = PhotographBackgrounds(backgrounds)
    paths = image_files(foregrounds)
    for path in paths:
        name = name_of(path, foregrounds)
        rng = np.random.default_rng((seed, crc32(name.encode())))
        colours, alpha = read_cutout(path)
        side = max(alpha.shape)
        background = photographs.draw(side, rng)[: alpha.shape[0], : alpha.shape[1]]
        _write_scene(output, name, Layers(colours, background, alpha), rng)
    return len(paths)


def _write_scene(output: Path, name: str, layers: Layers, rng: Random) -> None:
    look = augmentation.draw_look(rng)._replace(jpeg=0)
    layers = augmentation.change_layers(layers, look)
    image = augmentation.photograph(transforms.composite(layers), look)
    _write(output / "images" / f"{name}.png", np.round(image).astype(np.uint8)[..., ::-1])
    _write(output / "alphas" / f"{name}.png", layers.alpha)
    for folder, sizes in (("trimaps", NARROW), ("trimaps_wide", WIDE)):
        _write(output / folder / f"{name}.png", transforms.random_trimap(layers.alpha, sizes, rng))


def _write(path: Path, image: UInt8) -> None:
    write_bytes(path, cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes())
