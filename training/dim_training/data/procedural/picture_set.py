"""Drawn pictures, written to files as a data set: what loaders are timed with."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from dim.arrays import UInt8
from dim_training.data.procedural import shapes

FOREGROUNDS, BACKGROUNDS = 12, 6
COCO_SIDE = 640
"""Longer side of a COCO photograph, pixels."""


def write_drawn_set(root: Path, *, megapixels: float, seed: int = 0) -> None:
    """Write ``foregrounds/`` (RGBA PNG), ``backgrounds/`` (JPEG), and both as an annotation list.

    The list, ``training_list.json``, names colours and alphas in files of their own, as Composition-1k does;
    its backgrounds are as large as the foregrounds, as they are once Composition-1k is prepared.

    Args:
        megapixels: size of each foreground; 4:3.
    """
    for folder in ("foregrounds", "backgrounds", "fg", "alpha", "bg"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(width * 3 / 4)
    rng = np.random.default_rng(seed)
    entries = []
    for number in range(FOREGROUNDS):
        colours, background = (_cut(shapes.draw_colours(width, rng), height) for _ in range(2))
        alpha = _cut(shapes.draw_shape(width, rng).alpha, height)
        names = {"alpha": f"alpha/{number}.png", "fg": f"fg/{number}.png", "bg": f"bg/{number}.jpg"}
        cv2.imwrite(str(root / f"foregrounds/{number}.png"), np.dstack([colours, alpha]))
        for name, image in (("alpha", alpha), ("fg", colours), ("bg", background)):
            cv2.imwrite(str(root / names[name]), image)
        entries.append({f"{name}_path": path for name, path in names.items()})
    for number in range(BACKGROUNDS):
        drawn = _cut(shapes.draw_colours(COCO_SIDE, rng), COCO_SIDE * 3 // 4)
        cv2.imwrite(str(root / f"backgrounds/{number}.jpg"), drawn)
    (root / "training_list.json").write_text(json.dumps(entries), "utf-8")


def _cut(square: UInt8, height: int) -> UInt8:
    top = (square.shape[0] - height) // 2
    return np.ascontiguousarray(square[top : top + height])
