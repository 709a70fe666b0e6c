"""Image files: 8 and 16 bit, gray, RGB or RGBA in; PNG and TIFF out. RGB in memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dim.errors import InputError
from dim_runtime.image_header import declared_pixels

Image = npt.NDArray[np.uint8 | np.uint16]

MAX_PIXELS = 1 << 28
"""268 megapixels: more than any camera, less than a decompression bomb."""
OPENCV_MAX_PIXELS = 1 << 30
"""OpenCV refuses more unless OPENCV_IO_MAX_IMAGE_PIXELS is set before it is imported."""

WRITABLE = (".png", ".tif", ".tiff")
READABLE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image, turned upright as its EXIF orientation says.

    Args:
        path: gray becomes RGB, an alpha channel is dropped.
        max_pixels: larger images are refused; known from the header, before decoding, for PNG, JPEG and TIFF.

    Returns:
        uint8 or uint16 H, W, 3, RGB.

    Raises:
        InputError: missing, not an image, too large, or of another depth.
    """
    path = Path(path)
    require_pixels(path, max_pixels)
    decoded: Any = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"cannot use the image {path}", got=f"{decoded.dtype} samples", expected="8 or 16 bits"
        )
    if decoded.shape[0] * decoded.shape[1] > max_pixels:
        raise _too_large(path, decoded.shape[0] * decoded.shape[1], max_pixels)
    image: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)
    return image


def require_pixels(path: Path, max_pixels: int) -> None:
    """InputError if the file is missing or empty, or if its header declares more pixels than allowed."""
    if not path.is_file():
        raise InputError(f"cannot read the image {path}", got="a folder" if path.is_dir() else "no such file")
    declared = declared_pixels(path)
    if declared is not None and declared > max_pixels:
        raise _too_large(path, declared, max_pixels)


def _too_large(path: Path, pixels: int, max_pixels: int) -> InputError:
    fix = f"max_pixels={pixels} (--max-pixels {pixels}), if the file can be trusted"
    if pixels > OPENCV_MAX_PIXELS:
        fix += f", with OPENCV_IO_MAX_IMAGE_PIXELS={pixels} set in the environment"
    return InputError(
        f"cannot read the image {path}: it is too large",
        got=f"{pixels} pixels",
        expected=f"at most {max_pixels}",
        fix=fix,
    )


def read_gray(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image as 8-bit gray: uint8 H, W. Errors as :func:`read_image`."""
    path = Path(path)
    require_pixels(path, max_pixels)
    return _decode(path, cv2.IMREAD_GRAYSCALE).astype(np.uint8, copy=False)


def _decode(path: Path, flags: int) -> npt.NDArray[Any]:
    try:
        content = np.fromfile(path, np.uint8)
        decoded = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise InputError(f"cannot read the image {path}", why=str(error).strip()) from error
    if decoded is None:
        raise InputError(
            f"cannot read the image {path}", got="not an image, or damaged", expected=", ".join(READABLE)
        )
    return decoded


def require_writable(path: Path) -> None:
    """InputError, before any work is done, if no image can be written under this name."""
    if path.suffix.lower() not in WRITABLE:
        raise InputError(
            f"cannot write {path}", got=f"suffix {path.suffix!r}", expected=" or ".join(WRITABLE)
        )
    if path.is_dir():
        raise InputError(f"cannot write {path}", got="a folder", expected="a file name")


def write_image(path: str | Path, image: npt.NDArray[Any]) -> None:
    """Write a file that is complete or not there at all; its folder is made.

    Args:
        path: PNG or TIFF.
        image: uint8 or uint16, H, W (gray), H, W, 3 (RGB) or H, W, 4 (RGBA, straight alpha).

    Raises:
        InputError: another format, or a place that cannot be written.
    """
    path = Path(path)
    require_writable(path)
    encoded = _encode(path, image)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded.tofile(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}", why=error.strerror or str(error)) from error
    finally:
        # Nothing to remove after a rename, nor in a place where nothing could be written.
        with suppress(OSError):
            temporary.unlink()


def _encode(path: Path, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    orders = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    order = orders[2 if image.ndim == 2 else image.shape[2]]
    done, encoded = cv2.imencode(path.suffix.lower(), image if order is None else cv2.cvtColor(image, order))
    assert done, "OpenCV encodes PNG and TIFF of 8 and 16 bits"
    return np.asarray(encoded, np.uint8)
