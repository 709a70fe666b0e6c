"""Decode an image file: check what it declares, choose the decoder, turn the pixels upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from dim.arrays import Image, UInt8
from dim.errors import InputError, MissingExtraError
from dim.files import problem_of
from dim.images import headers, metadata, tiff_tags
from dim.images.headers import Header, HeaderError
from dim.images.metadata import Metadata
from dim.images.tiff_reader import TiffReader, has_tifffile

MAX_PIXELS = 1 << 28
"""268 megapixels: more than any camera, less than a decompression bomb."""
OPENCV_MAX_PIXELS = 1 << 30
"""OpenCV refuses more unless OPENCV_IO_MAX_IMAGE_PIXELS is set before it is imported."""
BYTES_PER_PIXEL = 24
"""Most bytes of a file for each pixel that it declares: RGB of 16 bits as text (netpbm) has about 18."""
SPARE_BYTES = 1 << 28
"""Bytes of a file beside those of its pixels: metadata, further frames, a film behind the image."""
FORMATS = "PNG, JPEG, TIFF, WebP, BMP, AVIF, GIF, JPEG 2000 or netpbm"

OTHERS = (
    (4, b"ftyphei", "HEIC, as telephones save it"),
    (4, b"ftypmif1", "HEIF, as telephones save it"),
    (4, b"ftypmsf1", "HEIF, as telephones save it"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
)
"""Formats that are not read, by the place and the bytes of their mark."""


class Decoded(NamedTuple):
    """An upright image.

    Attributes:
        pixels: uint8 or uint16 H, W, samples: gray, gray and alpha, RGB, or RGB and alpha.
        associated: whether colours are stored times alpha.
        metadata: profile, density and gamma.
        orientation: EXIF orientation that was applied, 1 to 8.
    """

    pixels: Image
    associated: bool
    metadata: Metadata
    orientation: int


def decode(path: Path, *, noun: str = "image", max_pixels: int = MAX_PIXELS, alpha: bool = True) -> Decoded:
    """Decode a file.

    Args:
        path: one of :data:`FORMATS`.
        noun: names the file in errors.
        max_pixels: larger images are refused, before decoding.
        alpha: whether an alpha channel is wanted; without it, gray may come as RGB.

    Raises:
        InputError: missing, not an image, damaged, too large, or of another depth.
        MissingExtraError: a TIFF that needs the extra ``tiff``.
    """
    header = require_pixels(path, max_pixels, noun)
    try:
        headers.require_whole(path)
        found = _tiff(path, header) if header.format == "TIFF" else _opencv(path, header, noun, alpha=alpha)
    except HeaderError as error:
        raise damaged(path, noun, why=str(error)) from error
    except OSError as error:
        raise InputError(f"cannot read the {noun} {path}", why=error.strerror or str(error)) from error
    pixels = found.pixels.shape[0] * found.pixels.shape[1]
    if pixels > max_pixels:
        raise _too_large(path, pixels, max_pixels, noun)
    return found


def require_pixels(path: Path, max_pixels: int, noun: str = "image") -> Header:
    """Return a file's header; InputError if it is missing, unknown, or declares too many pixels."""
    problem = problem_of(path)
    if problem is not None:
        raise InputError(f"cannot read the {noun} {path}", got=problem)
    try:
        header = headers.read_header(path)
    except HeaderError as error:
        raise damaged(path, noun, why=str(error)) from error
    except OSError as error:
        raise InputError(f"cannot read the {noun} {path}", why=error.strerror or str(error)) from error
    if header is None:
        raise _unknown(path, noun)
    if header.pixels > max_pixels:
        raise _too_large(path, header.pixels, max_pixels, noun)
    if header.width < 1 or header.height < 1:
        raise damaged(path, noun, why=f"it declares {header.width}×{header.height} px")
    return header


def orientation(path: Path) -> int:
    """Return the EXIF or TIFF orientation of the stored pixels, 1 to 8; errors as in :func:`decode`."""
    return decode(path, alpha=False).orientation


def damaged(path: Path, noun: str, why: str | None = None) -> InputError:
    """Return the error for a file that no decoder takes."""
    return InputError(
        f"cannot read the {noun} {path}", got="not an image, or damaged", expected=FORMATS, why=why
    )


def _unknown(path: Path, noun: str) -> InputError:
    """Return the error for a file without a header of ours, which names the format if it is a common one."""
    with path.open("rb") as file:
        start = file.read(16)
    kind = next((name for at, mark, name in OTHERS if start[at:].startswith(mark)), None)
    if kind is None:
        return damaged(path, noun)
    return InputError(
        f"cannot read the {noun} {path}", got=kind, expected=FORMATS, fix="save it in one of these formats"
    )


def _too_large(path: Path, pixels: int, max_pixels: int, noun: str) -> InputError:
    fix = f"max_pixels={pixels} (--max-pixels {pixels}), if the file can be trusted"
    if pixels > OPENCV_MAX_PIXELS:
        fix += f", with OPENCV_IO_MAX_IMAGE_PIXELS={pixels} set in the environment"
    if pixels > MAX_PIXELS:
        fix += "; or TIFF for image, trimap and output, which are then read and written window by window"
    return InputError(
        f"cannot read the {noun} {path}: it is too large",
        got=f"{pixels} pixels",
        expected=f"at most {max_pixels}",
        fix=fix,
    )


def _content(path: Path, header: Header, noun: str) -> UInt8:
    """Return the bytes of a file; InputError if it has far more than the pixels that it declares can need."""
    size, most = path.stat().st_size, BYTES_PER_PIXEL * header.pixels + SPARE_BYTES
    if size > most:
        raise InputError(
            f"cannot read the {noun} {path}: the file is too long",
            got=f"{size} bytes",
            expected=f"at most {most} bytes for {header.width}×{header.height} px",
        )
    return np.fromfile(path, np.uint8, count=size)


def _opencv(path: Path, header: Header, noun: str, *, alpha: bool) -> Decoded:
    # OpenCV does not make colours of gray JPEG 2000.
    unchanged = alpha or header.format == "JPEG 2000"
    flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    content = _content(path, header, noun)
    if header.format == "netpbm":
        # OpenCV reads one byte behind the last number of a text.
        content = np.append(content, np.uint8(ord("\n")))
    try:
        pixels, kinds, blocks = cv2.imdecodeWithMetadata(content, flags=flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise damaged(path, noun, why=error.err) from error
    if pixels is None:
        raise damaged(path, noun)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"cannot use the {noun} {path}", got=f"{pixels.dtype} samples", expected="8 or 16 bits"
        )
    found = metadata.of_decoded(path, kinds, blocks)
    turn = found.orientation if header.orientation is None else header.orientation
    upright = tiff_tags.upright(_rgb(_stretched(pixels, header.white)), turn)
    return Decoded(upright, False, found.metadata, turn)


def _stretched(pixels: Any, white: int | None) -> Any:
    """Return pixels that use the whole range of their type; OpenCV leaves 10 bits as 0 to 1023."""
    full = int(np.iinfo(pixels.dtype).max)
    if white is None or white >= full:
        return pixels
    levels = np.minimum(np.arange(full + 1), white) * (full / white)
    return np.take(np.rint(levels).astype(pixels.dtype), pixels)


def _rgb(pixels: Any) -> Image:
    """Return H, W, samples in the order RGB of OpenCV's BGR, in place where that is possible."""
    if pixels.ndim == 2:
        gray: Image = pixels[..., None]
        return gray
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, order, dst=pixels))


def _tiff(path: Path, header: Header) -> Decoded:
    if not has_tifffile():
        return _plain_tiff(path, header)
    with TiffReader(path, windows=False) as reader:
        return Decoded(reader[:, :], reader.associated, metadata.of_tiff(path), reader.orientation)


def _plain_tiff(path: Path, header: Header) -> Decoded:
    """Decode a TIFF by OpenCV, if it is of a kind that OpenCV reads right even if it is damaged."""
    try:
        with path.open("rb") as file:
            layout = _layout(file, path.stat().st_size)
    except tiff_tags.DAMAGED as error:
        raise damaged(path, "image", why="its tags are damaged") from error
    if layout is not None:
        raise MissingExtraError(f"read {path} ({layout})", package="tifffile", extra="tiff")
    found = _opencv(path, header, "image", alpha=True)
    return found._replace(metadata=metadata.of_tiff(path))


def _layout(file: Any, size: int) -> str | None:
    """Return what makes a TIFF more than uncompressed rows of gray or RGB; None for a plain one."""
    tags = tiff_tags.read_tags(file)
    if tags.repeated:
        raise KeyError("repeated tags")
    expected = (
        (tiff_tags.COMPRESSION, 1, (1,), "compression"),
        (tiff_tags.PLANAR, 1, (1,), "separate planes"),
        (tiff_tags.PHOTOMETRIC, 1, (1, 2), "other colours than gray and RGB"),
        (tiff_tags.SAMPLES_PER_PIXEL, 1, (1, 3), "an alpha channel"),
        (tiff_tags.BITS, 1, (8, 16), "other depths than 8 and 16 bits"),
        (tiff_tags.SAMPLE_FORMAT, 1, (1,), "samples that are not whole numbers"),
        (tiff_tags.ORIENTATION, 1, (1,), "an orientation"),
    )
    for tag, default, plain, name in expected:
        if tiff_tags.first_number(file, tags, tag, default) not in plain:
            return name
    if tiff_tags.STRIP_OFFSETS not in tags.fields:
        return "tiles"
    places = (tiff_tags.numbers(file, tags, tag) for tag in (tiff_tags.STRIP_OFFSETS, tiff_tags.STRIP_BYTES))
    if any(at + length > size for at, length in zip(*places, strict=False)):
        raise KeyError("strips beyond the end")
    return None
