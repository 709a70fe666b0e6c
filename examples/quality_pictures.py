"""Alphas side by side: the whole photograph above, its worst part enlarged below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from dim.arrays import UInt8
from dim.images.files import write_image

Window = tuple[slice, slice]

TITLE = 34
"""Height of the line above each panel, pixels."""
SHARE = 4
"""The enlarged part has a fourth of the photograph's height and width."""


def write_sheet(path: Path, panels: Mapping[str, UInt8], compared: tuple[str, str], *, width: int) -> None:
    """Write one picture, with the difference of two of its panels as the last one.

    Args:
        path: PNG or JPEG.
        panels: by title, uint8 H, W (gray) or H, W, 3 (RGB), all of one size.
        compared: titles of two gray panels; where they differ most, all are enlarged.
        width: of each panel, pixels.
    """
    alpha, reference = (panels[title] for title in compared)
    part = worst_part(cv2.absdiff(alpha, reference).astype(np.uint8, copy=False))
    shown = {**panels, " - ".join(compared): signed_difference(alpha, reference)}
    colours = {title: panel if panel.ndim == 3 else np.dstack([panel] * 3) for title, panel in shown.items()}
    whole = [_titled(_scaled(panel, width), title) for title, panel in colours.items()]
    enlarged = [_scaled(panel[part], width) for panel in colours.values()]
    write_image(path, np.vstack([np.hstack(whole), np.hstack(enlarged)]))


def worst_part(error: UInt8) -> Window:
    """Return the rows and columns, a :data:`SHARE` of the sides, whose mean error is largest."""
    height, width = (max(side // SHARE, 1) for side in error.shape)
    sums = cv2.integral(error)
    found = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(np.argmax(found), found.shape)
    return slice(int(y), int(y) + height), slice(int(x), int(x) + width)


def signed_difference(alpha: UInt8, other: UInt8) -> UInt8:
    """Draw equal pixels white, pixels where ``alpha`` is larger red, smaller blue; uint8 H, W, 3."""
    difference = alpha.astype(np.int16) - other
    more, less = np.clip(difference, 0, 255), np.clip(-difference, 0, 255)
    return (255 - np.dstack([less, more + less, more])).astype(np.uint8)


def _scaled(panel: UInt8, width: int) -> UInt8:
    size = width, round(panel.shape[0] * width / panel.shape[1])
    way = cv2.INTER_AREA if width < panel.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(panel, size, interpolation=way).astype(np.uint8, copy=False)


def _titled(panel: UInt8, title: str) -> UInt8:
    line = np.full((TITLE, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(line, title, (4, TITLE - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([line, panel])
