"""PNG files of Composition-1k: written whole, and recognised when they are there already."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from dim.arrays import UInt8
from dim.files import write_bytes
from dim_training.data.annotations import Size

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def write_png(path: Path, rgb: UInt8) -> None:
    """Write RGB uint8 H, W, 3 as a PNG without colour profile."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert encoded
    write_bytes(path, data.tobytes())


def is_complete_png(path: Path, size: Size) -> bool:
    """Return whether a PNG of this size is there, from its signature to its end mark."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
            file.seek(-len(_PNG_END), os.SEEK_END)
            tail = file.read()
    except OSError:
        return False
    return head == _png_head(size) and tail == _PNG_END


def _png_head(size: Size) -> bytes:
    width, height = size
    return _PNG_SIGNATURE + b"\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
