"""Make the README's picture: a photograph, its trimap, its alpha, and the cut-out over two backgrounds.

    python tools/readme_picture.py

The embedded model computes the alpha. Needs the extras `cpu` and `cutout`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dim.arrays import UInt8
from dim.images import read_image, read_trimap, write_image
from dim_runtime import Matting
from dim_runtime.outputs.foreground import composite, tile_foreground, tiles

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PHOTO, TRIMAP, PICTURE = (IMAGES / name for name in ("dandelion.jpg", "dandelion_trimap.png", "readme.jpg"))
WIDTH = 384
"""Width of a panel, pixels."""
GAP = 8
"""White columns between two panels."""
SKY = ((30, 90, 150), (140, 190, 230))
PAPER = ((244, 240, 236), (230, 222, 214))
"""Colours of a background at its top and bottom, RGB."""


def gradient(colours: tuple[tuple[int, int, int], tuple[int, int, int]], like: UInt8) -> UInt8:
    """Return a vertical gradient between two colours, uint8, of the shape of ``like``."""
    top, bottom = (np.array(colour, np.float64) for colour in colours)
    share = np.linspace(0, 1, like.shape[0])[:, None, None]
    return np.broadcast_to(np.rint(top + share * (bottom - top)), like.shape).astype(np.uint8)


def panels() -> list[UInt8]:
    """Return photograph, trimap, alpha and two composites, uint8 H, W, 3, RGB, all of one size."""
    image, trimap = read_image(PHOTO).astype(np.uint8), read_trimap(TRIMAP)
    with Matting() as matting:
        alpha = matting(image, trimap)
    (whole,) = tiles(*alpha.shape)
    colours = tile_foreground(image, alpha, whole)
    gray = [np.dstack([plane] * 3) for plane in (trimap, np.rint(alpha * 255).astype(np.uint8))]
    over = [composite(colours, alpha, gradient(background, image)) for background in (SKY, PAPER)]
    return [image, *gray, *(panel.astype(np.uint8) for panel in over)]


def sheet(pictures: list[UInt8]) -> UInt8:
    """Return the panels side by side, scaled to :data:`WIDTH`, with white between them."""
    height = round(WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    scaled = [cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    white = np.full((height, GAP, 3), 255, np.uint8)
    columns = [part for picture in scaled for part in (white, picture)][1:]
    return np.hstack(columns).astype(np.uint8)


if __name__ == "__main__":
    write_image(PICTURE, sheet(panels()))
    print(PICTURE)
