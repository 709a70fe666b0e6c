"""Image files: finding them below a folder, decoding them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dim.cutout import eight_bits
from dim.errors import InputError

UInt8 = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def image_files(root: Path) -> list[Path]:
    """Every image below a folder, sorted; none is an error."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"cannot find images in {root}", got="none" if root.is_dir() else "no such folder")
    return found


def read_rgb(path: Path) -> UInt8:
    """RGB uint8 H, W, 3, turned upright as EXIF says; 16 bits become round(v / 257)."""
    decoded = _eight_bits(path, decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_gray(path: Path) -> UInt8:
    """Gray uint8 H, W; 16 bits become round(v / 257)."""
    return _eight_bits(path, decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH))


def decode(path: Path, mode: int) -> npt.NDArray[Any]:
    """What OpenCV reads from a file; InputError where that is nothing."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), mode)
    except OSError as error:
        raise InputError(f"cannot read {path}", got=(error.strerror or str(error)).lower()) from error
    except cv2.error as error:
        raise InputError(f"cannot read {path}", got="not an image, or damaged", why=error.err) from error
    if image is None:
        raise InputError(f"cannot read {path}", got="not an image, or damaged")
    return image


def _eight_bits(path: Path, image: npt.NDArray[Any]) -> UInt8:
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"cannot read {path}", got=f"{image.dtype} samples", expected="8 or 16 bits")
    return eight_bits(image)
