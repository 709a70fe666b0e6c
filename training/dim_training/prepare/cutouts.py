"""Photographs with alphas -> RGBA cut-outs whose colours are the foreground's alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from dim import trimap as trimaps
from dim.arrays import UInt8
from dim.errors import InputError
from dim.images import folders, read_alpha, write_image
from dim_training.data.annotations import listed
from dim_training.data.files import read_rgb

BAND = 0.008
"""Radius by which the unknown band is widened before alpha is solved for, as a share of the longer side."""
SMALLEST_BAND = 5
REGULARISATION = 1e-6
"""Closed form's ε: small, so that alpha follows colours closely."""
ROUNDED = 0.02
"""Solved alphas this near to 0 and 1 are meant to be 0 and 1."""


def prepare_cutouts(images: Path, alphas: Path, output: Path, *, solve: bool = False) -> int:
    """Write one RGBA PNG for every image with an alpha of the same relative path; return how many.

    The foreground's colours are estimated with the fast multi-level method (Germer et al. 2020, pymatting),
    so that a new background does not shine through with the old one's colours. Files that exist are kept:
    an interrupted preparation continues.

    Args:
        images: folder of photographs, searched with its sub-folders.
        alphas: folder of their alphas; suffixes may differ.
        output: folder to write, with the same sub-folders.
        solve: the alphas are predictions, softer than the photographs: see :func:`solved_alpha`.

    Raises:
        InputError: no pairs, ambiguous names, or pairs that cannot be used; the others are written first.
    """
    pairs = _pairs(images, alphas)
    problems = []
    for name, (image_path, alpha_path) in track(pairs.items(), "cut-outs", console=Console(stderr=True)):
        target = output / f"{name}.png"
        if target.exists():
            continue
        try:
            write_image(target, _cutout(image_path, alpha_path, solve=solve))
        except InputError as error:
            parts = (error.problem, error.got, error.expected)
            problems.append("; ".join(str(part) for part in parts if part))
    if problems:
        raise InputError(
            f"cannot use {len(problems)} of {len(pairs)} pairs; the others are in {output}",
            got=listed(problems),
            fix="correct these files or take them out, then repeat the command: finished files are kept",
        )
    return len(pairs)


def _pairs(images: Path, alphas: Path) -> dict[str, tuple[Path, Path]]:
    """Return image and alpha by their common path below the two folders, without suffix."""
    found, matching = folders.by_name(images), folders.by_name(alphas)
    common = [name for name in found if name in matching]
    if not common:
        raise InputError(
            f"cannot pair {images} with {alphas}",
            got="no common file names",
            expected="the same names, in the same sub-folders",
        )
    ambiguous = [
        folders.unmatched(name, folder, files[name])
        for name in common
        for folder, files in ((images, found), (alphas, matching))
        if len(files[name]) > 1
    ]
    if ambiguous:
        raise InputError(
            f"cannot pair {images} with {alphas}", got=listed(ambiguous), expected="one file each"
        )
    return {name: (found[name][0], matching[name][0]) for name in common}


def _cutout(image_path: Path, alpha_path: Path, *, solve: bool) -> UInt8:
    """Return uint8 H, W, 4."""
    from pymatting import estimate_foreground_ml

    image, alpha = _read_pair(image_path, alpha_path)
    if solve:
        alpha = solved_alpha(image, alpha, source=alpha_path)
    foreground = estimate_foreground_ml(image / 255.0, alpha / 255.0)
    return np.dstack([np.clip(foreground * 255, 0, 255).round().astype(np.uint8), alpha])


def solved_alpha(image: UInt8, predicted: UInt8, *, source: Path) -> UInt8:
    """Solve alpha by closed form (Levin et al. 2008, pymatting) where a predicted one is soft, or nearly.

    A network's alpha is smoother than its photograph: strands that it lacks stay in the estimated foreground,
    and composites teach that they are not alpha. The solved one may be wrong, but it has what is seen.

    Args:
        image: uint8 H, W, 3; the order of the channels does not matter.
        predicted: uint8 H, W.
        source: names the alpha in errors.

    Raises:
        InputError: no foreground, or no background, far enough from what is soft.
    """
    from pymatting import estimate_alpha_cf

    radius = max(SMALLEST_BAND, round(BAND * max(predicted.shape)))
    side = 2 * radius + 1
    trimap = trimaps.from_alpha(trimaps.canonical(predicted).trimap, erode=side, dilate=side)
    if not {trimaps.BACKGROUND, trimaps.FOREGROUND} <= set(np.unique(trimap).tolist()):
        raise InputError(
            f"cannot solve {source} again",
            got=f"no foreground, or no background, more than {radius} px from soft pixels",
            expected="some of both: closed form starts from them",
            fix="take the pair out of the folders, and prepare it without --solve",
        )
    alpha = estimate_alpha_cf(image / 255.0, trimap / 255.0, laplacian_kwargs={"epsilon": REGULARISATION})
    stretched = np.clip((alpha - ROUNDED) / (1 - 2 * ROUNDED), 0, 1)
    return np.asarray((255 * stretched).round(), np.uint8)


def _read_pair(image_path: Path, alpha_path: Path) -> tuple[UInt8, UInt8]:
    image, alpha = read_rgb(image_path), read_alpha(alpha_path)
    if image.shape[:2] != alpha.shape:
        raise InputError(f"cannot use {image_path} with {alpha_path}", expected="two images of one size")
    return image, alpha
