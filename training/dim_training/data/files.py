"""Image files: finding them below a folder, reading photographs in 8 bits."""

from __future__ import annotations

from pathlib import Path

from dim.arrays import UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images import folders, read_image


def image_files(root: Path) -> list[Path]:
    """Return every image file below a folder, sorted; InputError if there is none."""
    found = folders.image_files(root)
    if not found:
        raise InputError(f"cannot find images in {root}", got="none")
    return found


def read_rgb(path: Path) -> UInt8:
    """Read RGB uint8 H, W, 3, turned upright by its EXIF orientation; 16 bits become round(v / 257)."""
    return eight_bits(read_image(path))
