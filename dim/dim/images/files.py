"""Image files in and out: images, cut-outs, trimaps, masks and alphas in memory, RGB."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dim.arrays import Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError, ProfileWarning
from dim.files import write_bytes
from dim.images import planes, tiff_tags
from dim.images.decoding import MAX_PIXELS, decode
from dim.images.metadata import Metadata, embed, encode_with_profile, fits_jpeg

WRITABLE = (".png", ".tif", ".tiff")
"""Suffixes of lossless formats, with 8 and 16 bits and with alpha."""
LOSSY = (".jpg", ".jpeg", ".webp")
"""Suffixes of formats of 8 bits that lose some detail."""
QUALITY = {
    ".jpg": cv2.IMWRITE_JPEG_QUALITY,
    ".jpeg": cv2.IMWRITE_JPEG_QUALITY,
    ".webp": cv2.IMWRITE_WEBP_QUALITY,
}
"""OpenCV's option of the quality, by suffix."""
LOSSY_QUALITY = 95
"""Quality of the lossy formats, of 100."""
READABLE = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".gif", ".jp2"),
    *(".pbm", ".pgm", ".pnm", ".ppm"),
)
"""Suffixes of image files in folders: those of all formats that are read."""


class Photograph(NamedTuple):
    """An image, and what outputs keep of its file.

    Attributes:
        image: uint8 or uint16 H, W, 3, RGB.
        metadata: ICC profile, density, gamma.
    """

    image: Image
    metadata: Metadata


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image, turned upright by its EXIF orientation.

    Args:
        path: gray becomes RGB, an alpha channel is dropped.
        max_pixels: larger images are refused, before they are decoded.

    Returns:
        uint8 or uint16 H, W, 3, RGB.

    Raises:
        InputError: missing, not an image, damaged, too large, or of another depth.
        MissingExtraError: a TIFF that needs the extra ``tiff``.
    """
    return read_photograph(path, max_pixels=max_pixels).image


def read_photograph(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read an image and its metadata; arguments and errors as in :func:`read_image`."""
    found = decode(Path(path), max_pixels=max_pixels, alpha=False)
    colours, _ = planes.split(found.pixels)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return Photograph(np.ascontiguousarray(colours), found.metadata)


def read_metadata(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Metadata:
    """Return the ICC profile, density and gamma of an image file; errors as in :func:`read_image`."""
    return decode(Path(path), max_pixels=max_pixels, alpha=False).metadata


def read_rgba(
    path: str | Path, *, noun: str = "cut-out", max_pixels: int = MAX_PIXELS, fix: str | None = None
) -> Image:
    """Read a cut-out: uint8 or uint16 H, W, 4, RGB and straight alpha.

    Colours that are stored times alpha, as a TIFF may declare, are divided by it. ``noun`` names the file in
    errors; ``fix`` is advice for a file without an alpha channel.

    Raises:
        InputError: as in :func:`read_image`; also a file without colours or without an alpha channel.
    """
    path = Path(path)
    found = decode(path, noun=noun, max_pixels=max_pixels)
    if found.pixels.shape[2] != 4:
        raise InputError(
            f"cannot use the {noun} {path}",
            got="no RGBA image",
            expected="a PNG with an alpha channel",
            fix=fix,
        )
    return _straight(found.pixels) if found.associated else found.pixels


def read_trimap(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read the values of a trimap file: uint8 H, W. 16 bits are rounded to 8; equal channels are one.

    :func:`dim.trimap.read` also maps them to 0, 128 and 255.

    Raises:
        InputError: as in :func:`read_image`; also colours, transparent pixels, or another scale.
    """
    path = Path(path)
    return planes.trimap_plane(decode(path, noun="trimap", max_pixels=max_pixels).pixels, path)


def read_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read a mask: uint8 H, W, whose object has 128 and more; see :func:`dim.images.planes.mask_plane`.

    Raises:
        InputError: as in :func:`read_image`; also several colours, another scale, no object, no background.
    """
    path = Path(path)
    return planes.mask_plane(decode(path, noun="mask", max_pixels=max_pixels).pixels, path)


def read_alpha(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read an alpha matte: uint8 H, W, from an alpha channel that is not constant, or else from gray.

    Raises:
        InputError: as in :func:`read_image`; also colours, or another scale.
    """
    path = Path(path)
    return planes.alpha_plane(decode(path, noun="alpha", max_pixels=max_pixels).pixels, path)


def _straight(pixels: Image) -> Image:
    """Return RGBA whose colours are divided by alpha; where alpha is 0 they stay."""
    largest = int(np.iinfo(pixels.dtype).max)
    alpha = np.maximum(pixels[..., 3:], 1).astype(np.float64)
    colours = np.rint(np.minimum(pixels[..., :3] * (largest / alpha), largest)).astype(pixels.dtype)
    visible = pixels[..., 3:] > 0
    rgba: Image = np.dstack([np.where(visible, colours, pixels[..., :3]), pixels[..., 3]])
    return rgba


def is_lossy(path: Path) -> bool:
    """Return whether a name is one of a format that holds 8 bits and loses some detail."""
    return path.suffix.lower() in LOSSY


def require_writable(path: Path, *, lossy: bool = False) -> None:
    """Raise an InputError, before any work is done, if no image can be written under this name.

    Args:
        path: where to write.
        lossy: whether formats that lose something will do.
    """
    allowed = (*WRITABLE, *LOSSY) if lossy else WRITABLE
    if path.is_dir():
        name = path / f"NAME{WRITABLE[0]}"
        raise InputError(f"cannot write {path}", got="a folder", expected=f"a file name, such as {name}")
    if path.suffix.lower() not in allowed:
        raise InputError(
            f"cannot write {path}",
            got=f"suffix {path.suffix!r}",
            expected=" or ".join(allowed),
            why="JPEG and WebP hold composites only" if is_lossy(path) else None,
        )


def write_image(
    path: str | Path,
    image: npt.NDArray[Any],
    *,
    metadata: Metadata | None = None,
    premultiplied: bool = False,
) -> None:
    """Write a file that is complete or not there at all; its folder is made.

    Args:
        path: PNG or TIFF; for RGB also JPEG or WebP, which get 8 bits.
        image: uint8 or uint16, H, W (gray), H, W, 3 (RGB) or H, W, 4 (RGBA).
        metadata: profile, density and gamma that the file keeps, as far as its format has a place for them;
            a profile that the encoder refuses is left out, with a :class:`~dim.errors.ProfileWarning`.
        premultiplied: whether RGBA colours are stored times alpha; a TIFF declares it, a PNG cannot.

    Raises:
        InputError: another format, or a place that cannot be written.
    """
    path = Path(path)
    require_writable(path, lossy=image.ndim == 3 and image.shape[2] == 3)
    kept = Metadata() if metadata is None else metadata
    encoded = _encode(path, image, kept)
    if image.ndim == 3 and image.shape[2] == 4 and tiff_tags.is_tiff(encoded):
        encoded = tiff_tags.with_tags(encoded, _alpha_tag(encoded, premultiplied))
    if kept != Metadata():
        encoded = embed(encoded, kept)
    write_bytes(path, encoded)


def _alpha_tag(encoded: bytes, premultiplied: bool) -> dict[int, tuple[int, bytes]]:
    order, _ = tiff_tags.SIGNATURES[encoded[:4]]
    kind = tiff_tags.ASSOCIATED_ALPHA if premultiplied else tiff_tags.STRAIGHT_ALPHA
    return {tiff_tags.EXTRA_SAMPLES: (tiff_tags.SHORT, struct.pack(order + "H", kind))}


def _encode(path: Path, image: npt.NDArray[Any], metadata: Metadata) -> bytes:
    suffix, options = path.suffix.lower(), []
    if suffix in QUALITY:
        image, options = eight_bits(image), [QUALITY[suffix], LOSSY_QUALITY]
    orders = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    order = orders[2 if image.ndim == 2 else image.shape[2]]
    try:
        bgr = image if order is None else cv2.cvtColor(image, order)
        if metadata.profile is not None and suffix in (".png", ".webp"):
            encoded = encode_with_profile(suffix, bgr, metadata.profile, options)
            if encoded is not None:
                return encoded
            text = f"the ICC profile is not kept in {path}: it is damaged, or not one of {suffix} files"
            warnings.warn(ProfileWarning(text), stacklevel=3)
        if metadata.profile is not None and suffix in (".jpg", ".jpeg") and not fits_jpeg(metadata.profile):
            text = (
                f"the ICC profile is not kept in {path}: {len(metadata.profile)} bytes are too many for JPEG"
            )
            warnings.warn(ProfileWarning(text), stacklevel=3)
        done, plain = cv2.imencode(suffix, bgr, options)
    except cv2.error as error:
        raise _not_encoded(path, image) from error
    if not done:
        raise _not_encoded(path, image)
    return plain.tobytes()


def _not_encoded(path: Path, image: npt.NDArray[Any]) -> InputError:
    return InputError(
        f"cannot write {path}",
        got=f"{image.shape[1]}×{image.shape[0]} px",
        why="the format does not hold an image of this size, or memory ran out",
        fix="a .png or .tif file",
    )
