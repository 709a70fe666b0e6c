"""Make the picture of a scribble file in docs/runtime.md: strokes over a photograph, the file, the cut-out.

    python tools/scribbles_picture.py

The strokes are drawn over the sample photograph. Trimap and alpha are made of them as ``dim-matte auto``
does. Needs the extras `cpu` and `cutout`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from dim.arrays import UInt8
from dim.images import write_image
from dim_runtime import Matting
from dim_runtime.images.samples import lemur, sample_paths
from dim_runtime.outputs.foreground import composite, tile_foreground, tiles
from dim_runtime.trimaps.sources import TrimapSources

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "scribbles.jpg"
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
THICKNESS = 5
STROKES = {
    WHITE: (
        ((300, 105), (350, 85), (400, 110)),
        ((310, 170), (350, 190)),
        ((291, 199), (301, 201)),
        ((353, 215), (363, 215)),
        ((320, 235), (316, 262)),
        ((340, 300), (270, 255)),
        ((430, 190), (420, 270)),
        ((468, 200), (480, 260)),
        ((212, 215), (225, 290)),
        ((225, 340), (300, 370)),
        ((380, 370), (480, 330)),
        ((504, 290), (498, 370)),
        ((180, 260), (186, 340)),
        ((270, 400), (300, 425)),
        ((370, 410), (400, 425)),
    ),
    BLACK: (
        ((40, 60), (60, 380)),
        ((110, 370), (100, 150)),
        ((150, 30), (540, 30)),
        ((520, 120), (560, 200), (565, 390)),
        ((640, 50), (650, 400)),
        ((150, 130), (205, 85)),
    ),
}
"""Points of each stroke, x and y in pixels, by colour."""
GREEN = (64, 160, 96)
"""Behind the cut-out, RGB."""
WIDTH = 440
"""Width of a panel, pixels."""
GAP = 8
"""White columns between two panels."""


def scribbles(height: int, width: int) -> UInt8:
    """Return the scribble file, uint8 H, W, 4, RGBA: transparent where nothing is marked."""
    marks = np.zeros((height, width, 4), np.uint8)
    for colour, strokes in STROKES.items():
        for points in strokes:
            corners = np.array(points, np.int32)
            cv2.polylines(marks, [corners], isClosed=False, color=colour, thickness=THICKNESS)
    return marks


def cutout(image: UInt8, marks: UInt8) -> UInt8:
    """Return the cut-out that the scribbles give, over a colour: uint8 H, W, 3, RGB."""
    with tempfile.TemporaryDirectory() as folder, Matting() as matting:
        file = Path(folder) / "scribbles.png"
        write_image(file, marks)
        sources = TrimapSources(image=sample_paths()[0], strokes=file)
        alpha = matting(image, sources.refined(sources.make(), matting))
    (whole,) = tiles(*alpha.shape)
    colours = tile_foreground(image, alpha, whole)
    return composite(colours, alpha, np.broadcast_to(np.array(GREEN, np.uint8), image.shape)).astype(np.uint8)


def over(marks: UInt8, below: UInt8) -> UInt8:
    """Return the scribbles over a picture, uint8 H, W, 3."""
    return np.where(marks[..., 3:] > 0, marks[..., :3], below)


def checkerboard(height: int, width: int) -> UInt8:
    """Return squares in two grays, which stand for transparency: uint8 H, W, 3."""
    rows, columns = np.ogrid[:height, :width]
    light = (rows // 10 + columns // 10) % 2
    return np.dstack([np.where(light, 190, 150).astype(np.uint8)] * 3)


def main() -> None:
    """Write the three panels side by side."""
    image, _ = lemur()
    marks = scribbles(*image.shape[:2])
    panels = [over(marks, image), over(marks, checkerboard(*image.shape[:2])), cutout(image, marks)]
    height = round(WIDTH * image.shape[0] / image.shape[1])
    panels = [cv2.resize(panel, (WIDTH, height), interpolation=cv2.INTER_AREA) for panel in panels]
    white = np.full((height, GAP, 3), 255, np.uint8)
    write_image(PICTURE, np.hstack([panels[0], white, panels[1], white, panels[2]]).astype(np.uint8))
    print(PICTURE)


if __name__ == "__main__":
    main()
