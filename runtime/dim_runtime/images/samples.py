"""The photograph that comes with the package: a lemur (Mathias Appel, CC0), 680×440, with its trimap."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import dim.trimap
from dim.images.files import read_image


class Sample(NamedTuple):
    """image: uint8 H, W, 3 RGB. trimap: uint8 H, W; 0 background, 128 unknown, 255 foreground."""

    image: npt.NDArray[np.uint8]
    trimap: npt.NDArray[np.uint8]


def lemur() -> Sample:
    """A ring-tailed lemur with a soft outline."""
    image, trimap = sample_paths()
    return Sample(read_image(image).astype(np.uint8, copy=False), dim.trimap.read(trimap).trimap)


def sample_paths() -> tuple[Path, Path]:
    """The files of the lemur's photograph and trimap."""
    folder = Path(__file__).parent / "samples"
    return folder / "lemur.png", folder / "lemur_trimap.png"
