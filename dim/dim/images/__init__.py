"""The one reader and writer of image files: images, trimaps, masks and alphas."""

from dim.images.decoding import MAX_PIXELS
from dim.images.files import (
    READABLE,
    read_alpha,
    read_image,
    read_mask,
    read_rgba,
    read_trimap,
    write_image,
)

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "read_alpha",
    "read_image",
    "read_mask",
    "read_rgba",
    "read_trimap",
    "write_image",
]
