"""The photograph that comes with the package: a lemur (Mathias Appel, CC0), 680×440, with its trimap."""

from __future__ import annotations

from pathlib import Path

from dim.arrays import UInt8
from dim_runtime.images.pairs import Pair, read_sample


def lemur() -> tuple[UInt8, UInt8]:
    """Read the image, uint8 H, W, 3 RGB, and the canonical trimap, uint8 H, W, of a ring-tailed lemur."""
    sample = read_sample(Pair("lemur", *sample_paths()))
    return sample.image, sample.trimap


def sample_paths() -> tuple[Path, Path]:
    """Return the files of the lemur's photograph and trimap."""
    folder = Path(__file__).parent / "samples"
    return folder / "lemur.png", folder / "lemur_trimap.png"
