"""Image files: 8 and 16 bit, gray, RGB or RGBA in; PNG, TIFF, JPEG and WebP out. RGB in memory."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Image
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.files import write_bytes
from dim.images import icc, tiff_tags
from dim.images.headers import declared_pixels, may_have_alpha

MAX_PIXELS = 1 << 28
"""268 megapixels: more than any camera, less than a decompression bomb."""
OPENCV_MAX_PIXELS = 1 << 30
"""OpenCV refuses more unless OPENCV_IO_MAX_IMAGE_PIXELS is set before it is imported."""

WRITABLE = (".png", ".tif", ".tiff")
"""Formats that lose nothing, with 8 and 16 bits and with alpha."""
LOSSY = (".jpg", ".jpeg", ".webp")
"""Formats of 8 bits, for what is looked at and not worked on."""
QUALITY = {
    ".jpg": cv2.IMWRITE_JPEG_QUALITY,
    ".jpeg": cv2.IMWRITE_JPEG_QUALITY,
    ".webp": cv2.IMWRITE_WEBP_QUALITY,
}
LOSSY_QUALITY = 95
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


def require_pixels(path: Path, max_pixels: int, noun: str = "image") -> None:
    """InputError if the file is missing or empty, or if its header declares more pixels than allowed."""
    if not path.is_file():
        raise InputError(
            f"cannot read the {noun} {path}", got="a folder" if path.is_dir() else "no such file"
        )
    declared = declared_pixels(path)
    if declared is not None and declared > max_pixels:
        raise _too_large(path, declared, max_pixels)


def _too_large(path: Path, pixels: int, max_pixels: int) -> InputError:
    fix = f"max_pixels={pixels} (--max-pixels {pixels}), if the file can be trusted"
    if pixels > OPENCV_MAX_PIXELS:
        fix += f", with OPENCV_IO_MAX_IMAGE_PIXELS={pixels} set in the environment"
    if pixels > MAX_PIXELS:
        fix += "; or TIFF for image, trimap and output, which are then read and written window by window"
    return InputError(
        f"cannot read the image {path}: it is too large",
        got=f"{pixels} pixels",
        expected=f"at most {max_pixels}",
        fix=fix,
    )


def read_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a mask as 8-bit gray: uint8 H, W. Errors as :func:`read_image`."""
    return read_alpha(path, max_pixels=max_pixels)


def read_alpha(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an alpha matte: uint8 H, W; 16 bits are rounded to 8. Errors as :func:`read_image`."""
    path = Path(path)
    require_pixels(path, max_pixels)
    decoded = _decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"cannot use the alpha {path}", got=f"{decoded.dtype} samples", expected="8 or 16 bits"
        )
    return eight_bits(decoded)


def read_rgba(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a cut-out: uint8 or uint16 H, W, 4, RGBA with straight alpha.

    Raises:
        InputError: as :func:`read_image`; also a file without an alpha channel.
    """
    path = Path(path)
    require_pixels(path, max_pixels)
    decoded: Any = _decode(path, cv2.IMREAD_UNCHANGED)
    if decoded.ndim != 3 or decoded.shape[2] != 4 or decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"cannot use the cut-out {path}", got="no RGBA image", expected="a PNG with an alpha channel"
        )
    rgba: Image = cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA)
    return rgba


def read_trimap(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a trimap file as it is: uint8 H, W. 16 bits are rounded to 8; equal colour channels are one.

    Raises:
        InputError: as :func:`read_image`; also real colours, and an alpha channel that is not opaque.
    """
    path = Path(path)
    require_pixels(path, max_pixels, "trimap")
    decoded = _decode(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH, "trimap")
    if decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"cannot use the trimap {path}", got=f"{decoded.dtype} samples", expected="8 or 16 bits"
        )
    if may_have_alpha(path):
        _require_opaque(path)
    return one_channel(eight_bits(decoded), path)


GRAY_TOLERANCE = 8
"""How far the channels of a gray pixel may be apart: a lossy file mixes them."""


def one_channel(levels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    """uint8 H, W of a trimap that is H, W or H, W, 3; InputError if it has colours."""
    if levels.ndim == 2:
        return levels
    middle = levels[..., 1]
    if any(int(cv2.absdiff(levels[..., other], middle).max()) > GRAY_TOLERANCE for other in (0, 2)):
        raise InputError(
            f"cannot use the trimap {path}",
            got="colours",
            expected="gray: 0 background, 128 unknown, 255 foreground",
        )
    return np.ascontiguousarray(middle)


def _require_opaque(path: Path) -> None:
    """A trimap says with its levels what is background; transparency would say it a second time."""
    unchanged = _decode(path, cv2.IMREAD_UNCHANGED)
    if unchanged.ndim == 3 and unchanged.shape[2] in (2, 4):
        alpha = unchanged[..., -1]
        if int(alpha.min()) < np.iinfo(alpha.dtype).max:
            raise transparent_trimap(path)


def transparent_trimap(path: Path) -> InputError:
    return InputError(
        f"cannot use the trimap {path}",
        got="an alpha channel with transparent pixels",
        expected="gray: 0 background, 128 unknown, 255 foreground",
        fix="flatten the file, so that its levels alone tell what is known",
    )


def _decode(path: Path, flags: int, noun: str = "image") -> npt.NDArray[Any]:
    try:
        content = np.fromfile(path, np.uint8)
        _keep_straight_colours(content)
        decoded = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise InputError(f"cannot read the {noun} {path}", why=str(error).strip()) from error
    if decoded is None:
        raise InputError(
            f"cannot read the {noun} {path}", got="not an image, or damaged", expected=", ".join(READABLE)
        )
    return decoded


def _keep_straight_colours(content: npt.NDArray[np.uint8]) -> None:
    """Call a TIFF's straight alpha unspecified: the decoder would multiply 8-bit colours with it."""
    try:
        tags = tiff_tags.read_tags(io.BytesIO(content.data))
        field = tags.fields[tiff_tags.EXTRA_SAMPLES]
        content[field.position : field.position + field.length] = 0
    except (struct.error, KeyError):
        return


def is_lossy(path: Path) -> bool:
    """Whether the name is of a format that holds 8 bits and loses some."""
    return path.suffix.lower() in LOSSY


def require_writable(path: Path, *, lossy: bool = False) -> None:
    """InputError, before any work is done, if no image can be written under this name.

    Args:
        path: where to write.
        lossy: whether formats that lose something will do.
    """
    allowed = (*WRITABLE, *LOSSY) if lossy else WRITABLE
    if path.suffix.lower() not in allowed:
        raise InputError(f"cannot write {path}", got=f"suffix {path.suffix!r}", expected=" or ".join(allowed))
    if path.is_dir():
        raise InputError(f"cannot write {path}", got="a folder", expected="a file name")


def write_image(
    path: str | Path,
    image: npt.NDArray[Any],
    *,
    profile: bytes | None = None,
    premultiplied: bool = False,
) -> None:
    """Write a file that is complete or not there at all; its folder is made.

    Args:
        path: PNG or TIFF; for RGB also JPEG or WebP, which get 8 bits.
        image: uint8 or uint16, H, W (gray), H, W, 3 (RGB) or H, W, 4 (RGBA).
        profile: ICC profile of the colours.
        premultiplied: whether RGBA colours are stored times alpha; a TIFF says so, a PNG has no way to.

    Raises:
        InputError: another format, or a place that cannot be written.
    """
    path = Path(path)
    require_writable(path, lossy=image.ndim == 3 and image.shape[2] == 3)
    encoded = _encode(path, image)
    if image.ndim == 3 and image.shape[2] == 4 and tiff_tags.is_tiff(encoded):
        encoded = tiff_tags.with_tags(encoded, _alpha_tag(encoded, premultiplied))
    if profile is not None:
        encoded = icc.embed(encoded, profile)
    write_bytes(path, encoded)


ASSOCIATED_ALPHA, STRAIGHT_ALPHA = 1, 2
"""Values of TIFF's ExtraSamples."""


def _alpha_tag(encoded: bytes, premultiplied: bool) -> dict[int, tuple[int, bytes]]:
    order, _ = tiff_tags.SIGNATURES[encoded[:4]]
    kind = ASSOCIATED_ALPHA if premultiplied else STRAIGHT_ALPHA
    return {tiff_tags.EXTRA_SAMPLES: (tiff_tags.SHORT, struct.pack(order + "H", kind))}


def _encode(path: Path, image: npt.NDArray[Any]) -> bytes:
    suffix, options = path.suffix.lower(), []
    if suffix in QUALITY:
        image, options = eight_bits(image), [QUALITY[suffix], LOSSY_QUALITY]
    orders = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    order = orders[2 if image.ndim == 2 else image.shape[2]]
    try:
        bgr = image if order is None else cv2.cvtColor(image, order)
        done, encoded = cv2.imencode(suffix, bgr, options)
    except cv2.error as error:
        raise _not_encoded(path, image) from error
    if not done:
        raise _not_encoded(path, image)
    return encoded.tobytes()


def _not_encoded(path: Path, image: npt.NDArray[Any]) -> InputError:
    return InputError(
        f"cannot write {path}",
        got=f"{image.shape[1]}×{image.shape[0]} px",
        why="the format does not hold an image of this size, or memory ran out",
        fix="a .png or .tif file",
    )
