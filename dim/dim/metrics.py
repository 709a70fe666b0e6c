"""Errors of a predicted alpha against the truth, on the published scales.

All functions take uint8 H, W arrays: predicted alpha, true alpha, trimap. The prediction must already agree
with the trimap's known pixels. Definitions: Rhemann et al., CVPR 2009, as MMEditing implements them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dim.errors import InputError
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN

UInt8 = npt.NDArray[np.uint8]


def sad(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Sum of absolute differences over all pixels, alpha in 0-1, divided by 1000."""
    _check(alpha, truth, trimap)
    return float(np.abs(alpha.astype(np.int32) - truth).sum() / 255 / 1000)


def mse(alpha: UInt8, truth: UInt8, trimap: UInt8) -> float:
    """Sum of squared differences over all pixels, alpha in 0-1, divided by the number of unknown pixels.

    0 where no pixel is unknown.
    """
    _check(alpha, truth, trimap)
    pixels = int((trimap == UNKNOWN).sum())
    squares = ((alpha.astype(np.int32) - truth) ** 2).sum() / 255**2
    return float(squares / pixels) if pixels else 0.0


def _check(alpha: UInt8, truth: UInt8, trimap: UInt8) -> None:
    for name, array in (("alpha", alpha), ("truth", truth), ("trimap", trimap)):
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape != trimap.shape:
            raise InputError(
                f"cannot score: {name} does not fit",
                got=f"{array.dtype} {array.shape}",
                expected=f"uint8 with the trimap's shape {trimap.shape}",
            )
    if (alpha[trimap == BACKGROUND] != 0).any() or (alpha[trimap == FOREGROUND] != 255).any():
        raise InputError(
            "cannot score a prediction that contradicts its trimap",
            expected="0 where the trimap is 0 and 255 where it is 255",
            fix="alpha[trimap == 0] = 0; alpha[trimap == 255] = 255",
        )
