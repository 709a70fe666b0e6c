"""Image files: finding them below a folder, reading photographs in 8 bits."""

from __future__ import annotations

from pathlib import Path

from dim.arrays import UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.images import read_image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def image_files(root: Path) -> list[Path]:
    """Every image below a folder, sorted; none is an error."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"cannot find images in {root}", got="none" if root.is_dir() else "no such folder")
    return found


def read_rgb(path: Path) -> UInt8:
    """RGB uint8 H, W, 3, turned upright as EXIF says; 16 bits become round(v / 257)."""
    return eight_bits(read_image(path))
