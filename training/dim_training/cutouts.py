"""Photographs with alphas -> RGBA cut-outs whose colours are the foreground's alone."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from dim.errors import InputError
from dim_training.files import image_files


def prepare_cutouts(images: Path, alphas: Path, output: Path) -> int:
    """Write one RGBA PNG for every image whose alpha has the same stem; returns how many.

    The foreground's colours are estimated with the fast multi-level method (Germer et al. 2020, pymatting),
    so that a new background does not shine through with the old one's colours. Files that are there already
    are kept: an interrupted run goes on.
    """
    from pymatting import estimate_foreground_ml

    output.mkdir(parents=True, exist_ok=True)
    by_stem = {path.stem: path for path in image_files(alphas)}
    pairs = [(image, by_stem[image.stem]) for image in image_files(images) if image.stem in by_stem]
    if not pairs:
        raise InputError(
            f"cannot pair {images} with {alphas}", got="no common file names", expected="same stems"
        )
    for image_path, alpha_path in track(pairs, "cut-outs"):
        target = output / f"{image_path.stem}.png"
        if target.exists():
            continue
        image, alpha = cv2.imread(str(image_path)), cv2.imread(str(alpha_path), cv2.IMREAD_GRAYSCALE)
        if image is None or alpha is None or image.shape[:2] != alpha.shape:
            raise InputError(f"cannot use {image_path} with {alpha_path}", expected="two images of one size")
        foreground = estimate_foreground_ml(image / 255.0, alpha / 255.0)
        _write(target, np.dstack([np.clip(foreground * 255, 0, 255).round().astype(np.uint8), alpha]))
    return len(pairs)


def _write(target: Path, rgba: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    temporary = target.with_name(f".{target.stem}.tmp.png")
    cv2.imwrite(str(temporary), rgba)
    os.replace(temporary, target)
