"""Scenes to validate and test with: foregrounds of exact alpha over backgrounds, as folders of pairs."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from dim import trimap as trimaps
from dim.arrays import Random, UInt8
from dim.errors import InputError
from dim.files import replace_folder, write_bytes
from dim.images.folders import name_of
from dim_training.config import LARGEST_EXPONENT
from dim_training.data import augmentation, transforms
from dim_training.data.augmentation import Look
from dim_training.data.files import image_files
from dim_training.data.patches import patch
from dim_training.data.softening import soften
from dim_training.data.sources import Cutout, PhotographBackgrounds, merge, read_cutout
from dim_training.data.transforms import Layers

NARROW, WIDE = (2, 25), (25, 61)
"""Smallest and largest side, pixels, of the elements that make trimaps/ and trimaps_wide/."""


BAND, PATCH = 0.2, 8
"""Width of a band as a share of the image's side, and side of the patches of its colours, pixels."""


def compose_scenes(
    foregrounds: Path,
    backgrounds: Path,
    output: Path,
    *,
    seed: int = 0,
    band: bool = False,
    patched: float = 0.0,
    softened: float = 0.0,
    exponents: tuple[float, float] = (1.0, 1.0),
    largest_side: int | None = None,
) -> int:
    """Write a scene for each foreground, and return how many there are.

    Colours, background, defocus, noise and trimaps are drawn by the seed and the foreground's name, as
    training draws them; there are no JPEG artefacts. Another set of backgrounds gives other scenes.

    Args:
        foregrounds: folder of RGBA files.
        backgrounds: folder of images.
        output: gets images/, trimaps/, trimaps_wide/ and alphas/, as PNG files of equal names.
        band: give an opaque band (:func:`add_band`) to each foreground of which no pixel would be known
            foreground in the widest trimap, such as nets, so that classical methods can run on it.
        patched: share of the foregrounds that get parts of another colour, as ``data.patched`` of a recipe.
        softened: share of the foregrounds that get a softer border, as ``data.softened`` of a recipe.
        exponents: smallest and largest power of colours that are mixed, as ``data.exponents`` of a recipe.
        largest_side: pixels; larger foregrounds are reduced (:func:`reduce`), so that photographed cut-outs
            have the size of what the network sees. None leaves them as they are.

    Raises:
        InputError: a folder without images, two foregrounds of one name, files that cannot be used, or an
            output that is not empty; exponents that are not in order.
    """
    _require_new(output, foregrounds, backgrounds)
    _require_exponents(exponents)
    photographs = PhotographBackgrounds(backgrounds)
    paths = _named(foregrounds)
    with replace_folder(output) as new:
        for name, path in paths.items():
            # Each change has its own generator, so that the other draws stay the same.
            rng, for_band, for_softening, for_light, for_patches = (
                np.random.default_rng((seed, crc32(name.encode()), *more))
                for more in ((), (1,), (2,), (3,), (4,))
            )
            cutout = reduce(read_cutout(path), largest_side)
            if for_patches.random() < patched:
                cutout = patch(cutout, for_patches)
            if for_softening.random() < softened:
                cutout = soften(cutout, for_softening)
            if band and not _is_known_somewhere(cutout.alpha):
                cutout = add_band(cutout, for_band)
            height, width = cutout.alpha.shape
            background = photographs.draw(max(height, width), rng)[:height, :width]
            look = augmentation.draw_look(rng)._replace(jpeg=0, exponent=float(for_light.uniform(*exponents)))
            _write_scene(new, name, Layers(cutout.colours, background, cutout.alpha), look, rng)
    return len(paths)


def _require_new(output: Path, *inputs: Path) -> None:
    """Raise InputError unless scenes can be written to ``output`` without mixing with other files."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(
            f"cannot compose scenes in {output}",
            got="a folder that is not empty" if output.is_dir() else "a file",
            expected="a new folder",
            why="scenes of other foregrounds would stay among the new ones",
        )
    for folder in inputs:
        if output.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"cannot compose scenes in {output}",
                got=f"a folder in {folder}",
                why="the scenes would be among its images",
                fix="another folder",
            )


def _require_exponents(exponents: tuple[float, float]) -> None:
    smallest, largest = exponents
    if not 1 <= smallest <= largest <= LARGEST_EXPONENT:
        raise InputError(
            "cannot mix colours in these powers",
            got=f"{smallest:g} and {largest:g}",
            expected=f"two numbers from 1 to {LARGEST_EXPONENT}, the smaller one first",
        )


def _named(foregrounds: Path) -> dict[str, Path]:
    """Return the image files of a folder by the names of their scenes."""
    found: dict[str, Path] = {}
    for path in image_files(foregrounds):
        first = found.setdefault(name_of(path, foregrounds), path)
        if first != path:
            raise InputError(
                f"cannot compose scenes of {foregrounds}",
                got=f"{first.name} and {path.name}, which would be one scene",
                fix="rename one of them",
            )
    return found


def reduce(cutout: Cutout, largest_side: int | None) -> Cutout:
    """Return a foreground whose longer side is at most ``largest_side`` pixels; a smaller one stays as it is.

    A pixel becomes the mean of those that it covers, colours weighted by their alpha: what was invisible
    must not show at the border.
    """
    height, width = cutout.alpha.shape
    if largest_side is None or max(height, width) <= largest_side:
        return cutout
    scale = largest_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    straight, weights = (layer.astype(np.float32) for layer in cutout)
    mixed, alpha = (
        cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
        for layer in (straight * weights[..., None], weights)
    )
    colours = mixed / np.maximum(alpha, 1e-6)[..., None]
    return Cutout(np.round(colours).clip(0, 255).astype(np.uint8), np.round(alpha).astype(np.uint8))


def add_band(cutout: Cutout, rng: Random) -> Cutout:
    """Join an opaque band along one side of the image, as a hem, a pole or a stand.

    Its colours are those of the foreground, in patches, each of a pixel that is drawn by its opacity.
    """
    turn = int(rng.integers(4))
    # Turned so that the band is at the top.
    colours, alpha = (np.rot90(layer, turn) for layer in cutout)
    height, width = alpha.shape
    visible = alpha > 0
    weights = alpha[visible].astype(np.float64)
    cells = (height // PATCH + 1, width // PATCH + 1)
    drawn = rng.choice(len(weights), cells, p=weights / weights.sum())
    cloth = cv2.resize(colours[visible][drawn], (width, height), interpolation=cv2.INTER_LINEAR)
    rows = np.arange(height)[:, None] < BAND * height
    solid = np.where(rows, np.uint8(255), np.uint8(0)) * np.ones_like(alpha)
    joined = merge(Cutout(cloth.astype(np.uint8, copy=False), solid), Cutout(colours, alpha))
    return Cutout(*(np.ascontiguousarray(np.rot90(layer, -turn)) for layer in joined))


def _is_known_somewhere(alpha: UInt8) -> bool:
    return bool((trimaps.from_alpha(alpha, erode=WIDE[1], dilate=1) == trimaps.FOREGROUND).any())


def _write_scene(output: Path, name: str, layers: Layers, look: Look, rng: Random) -> None:
    layers = augmentation.change_layers(layers, look)
    image = augmentation.photograph(transforms.composite(layers, look.exponent), look)
    _write(output / "images" / f"{name}.png", np.round(image).astype(np.uint8)[..., ::-1])
    _write(output / "alphas" / f"{name}.png", layers.alpha)
    for folder, sizes in (("trimaps", NARROW), ("trimaps_wide", WIDE)):
        _write(output / folder / f"{name}.png", transforms.random_trimap(layers.alpha, sizes, rng))


def _write(path: Path, image: UInt8) -> None:
    write_bytes(path, cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes())
