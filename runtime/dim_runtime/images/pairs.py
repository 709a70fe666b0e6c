"""Pairs of image and trimap in folders, with or without true alphas: find the files, read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import dim.trimap
from dim.arrays import UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images import MAX_PIXELS, READABLE, read_alpha, read_image
from dim.images.decoding import orientation
from dim.images.folders import SHOWN, by_name, unmatched


class Shaped(Protocol):
    """An array, or a file that slices like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Pair(NamedTuple):
    """Files that belong together.

    Attributes:
        name: the image's path below its folder, without suffix.
        image: image file.
        trimap: trimap file.
        alpha: file of the true alpha, if there is one.
    """

    name: str
    image: Path
    trimap: Path
    alpha: Path | None = None


class Unpaired(NamedTuple):
    """A name for which a file is missing or ambiguous.

    Attributes:
        name: path below the folder, without suffix.
        problem: which file is missing, or which files are ambiguous.
    """

    name: str
    problem: str


class Pairing(NamedTuple):
    """Complete pairs and incomplete ones, each sorted by name."""

    pairs: list[Pair]
    unpaired: list[Unpaired]


class MattingSample(NamedTuple):
    """Arrays that belong together, all of one size.

    Attributes:
        image: uint8 H, W, 3, RGB.
        trimap: canonical, uint8 H, W; 0 background, 128 unknown, 255 foreground.
        alpha: true alpha, uint8 H, W, if it is known.
        name: where the arrays come from.
    """

    image: UInt8
    trimap: UInt8
    alpha: UInt8 | None = None
    name: str = ""


def find_pairs(folder: Path, trimaps: Path | None = None, *, alphas: bool = False) -> list[Pair]:
    """Return the pairs of a folder, sorted by name.

    Args:
        folder: holds ``images/``, ``trimaps/`` and perhaps ``alphas/``; with ``trimaps`` a folder of images.
        trimaps: folder of trimaps.
        alphas: whether each image must have a true alpha in ``folder/alphas/``.

    Raises:
        InputError: a folder that does not exist, no images, or names whose files are missing or ambiguous;
            all of them are listed.
    """
    found = pair_up(folder, trimaps, alphas=alphas)
    require_paired(folder, [lone.problem for lone in found.unpaired])
    return found.pairs


def require_paired(data: Path, problems: list[str]) -> None:
    """Raise an InputError that lists the problems, if there are any."""
    if problems:
        shown = problems[:SHOWN] + ["…"] * (len(problems) > SHOWN)
        raise InputError(
            f"cannot pair the files of {data}",
            got=f"{len(problems)} problems:\n    " + "\n    ".join(shown),
            expected="one file of each name in each folder",
        )


def pair_up(
    folder: Path, trimaps: Path | None = None, *, alphas: bool = False, skip: Path | None = None
) -> Pairing:
    """Return the complete and the incomplete pairs of a folder.

    Files are paired by their path below the two folders, without suffix; sub-folders are searched, hidden
    files are not. Alphas without an image are ignored.

    Args:
        folder, trimaps, alphas: as in :func:`find_pairs`.
        skip: a folder that is not searched, such as the output folder.

    Raises:
        InputError: a folder that does not exist, or no images.
    """
    images = folder if trimaps is not None else folder / "images"
    folders = [images, trimaps or folder / "trimaps"] + [folder / "alphas"] * alphas
    groups = [by_name(each, skip=skip) for each in folders]
    names = sorted({*groups[0], *groups[1]})
    if not names:
        raise InputError(f"there are no images in {images}", expected=f"files such as NAME{READABLE[0]}")
    found = Pairing([], [])
    for name in names:
        files = [group.get(name, []) for group in groups]
        problems = [unmatched(name, *each) for each in zip(folders, files, strict=True) if len(each[1]) != 1]
        if problems:
            found.unpaired.append(Unpaired(name, "\n    ".join(problems)))
        else:
            found.pairs.append(Pair(name, *(each[0] for each in files)))
    return found


def read_sample(pair: Pair, *, max_pixels: int = MAX_PIXELS) -> MattingSample:
    """Read a pair that is to be scored or learnt from; images of 16 bits are rounded to 8.

    Raises:
        InputError: a file that cannot be used, files of several sizes, or a trimap without unknown pixels.
    """
    trimap = dim.trimap.read(pair.trimap, max_pixels=max_pixels).trimap
    dim.trimap.require_unknown(trimap, str(pair.trimap))
    image = eight_bits(read_image(pair.image, max_pixels=max_pixels))
    alpha = None if pair.alpha is None else read_alpha(pair.alpha, max_pixels=max_pixels)
    require_one_size(pair, image, trimap, alpha)
    return MattingSample(image, trimap, alpha, pair.name)


def read_samples(folder: Path) -> Iterator[MattingSample]:
    """Read the pairs of ``images/`` and ``trimaps/``, one at a time, with true alphas if ``alphas/`` exists.

    Raises:
        InputError: as in :func:`find_pairs`, at once, and in :func:`read_sample`.
    """
    return map(read_sample, find_pairs(folder, alphas=(folder / "alphas").is_dir()))


def require_one_size(
    pair: Pair, image: Shaped, trimap: Shaped, alpha: Shaped | None = None, *, noun: str = "trimap"
) -> None:
    """Raise an InputError that gives all sizes, if the arrays of a pair differ in height or width.

    Args:
        pair: the files, as the error names them.
        image, trimap, alpha: what was read of them.
        noun: what the user gave as the pair's trimap: a trimap, or the mask that became one.
    """
    arrays = {"image": image, noun: trimap} | ({} if alpha is None else {"alpha": alpha})
    if len({array.shape[:2] for array in arrays.values()}) > 1:
        sizes = (f"{name} {array.shape[1]}×{array.shape[0]} px" for name, array in arrays.items())
        turned = trimap.shape[:2] == image.shape[1::-1] and orientation(pair.image) >= 5
        raise InputError(
            f"cannot use {pair.image} with {pair.trimap}",
            got=", ".join(sizes),
            expected=f"{', '.join(arrays)} of one size",
            why=f"the image is turned by its EXIF orientation, the {noun} is not" if turned else None,
            fix=f"turn the {noun} as the image, or draw it on the upright image"
            if turned
            else f"make the {noun} from this image, or resize it with nearest-neighbour interpolation",
        )
