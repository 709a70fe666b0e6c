"""What a matting takes: checks of image, trimap and output, whatever kind of array they are."""

from __future__ import annotations

from typing import Any

import numpy as np

import dim.trimap
from dim.errors import InputError
from dim_runtime.arrays import Sliceable


def require_trimap(trimap: Any) -> None:
    """InputError unless it is uint8 H, W with at least one pixel: an ndarray, or what slices like one."""
    if isinstance(trimap, np.ndarray) or not _sliceable(trimap):
        dim.trimap.validate(trimap)
    elif _dtype(trimap) != np.uint8 or len(trimap.shape) != 2 or 0 in trimap.shape:
        raise InputError(
            "cannot use this trimap",
            got=f"{trimap.dtype} with shape {trimap.shape}",
            expected="uint8 H, W: 0 background, 128 unknown, 255 foreground",
        )


def require_pair(image: Any, trimap: Any) -> None:
    """InputError unless the image is uint8 or uint16 H, W, 3 and the trimap uint8 H, W of the same size."""
    require_trimap(trimap)
    if not _sliceable(image):
        raise InputError("cannot use this image", got=type(image).__name__, expected="a numpy array, H, W, 3")
    shape = image.shape
    if _dtype(image) not in (np.uint8, np.uint16) or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(
            "cannot use this image",
            got=f"{image.dtype} with shape {shape}",
            expected="uint8 or uint16 H, W, 3, RGB",
            fix="repeat a gray channel three times, drop a fourth channel; for floats in [0, 1]: "
            "(x * 255).round().astype('uint8')",
        )
    _require_same_size(image, trimap)


def _require_same_size(image: Sliceable, trimap: Sliceable) -> None:
    (height, width), (rows, columns) = image.shape[:2], trimap.shape
    if (height, width) != (rows, columns):
        raise InputError(
            "image and trimap differ in size",
            got=f"image of {width}×{height} px, trimap of {columns}×{rows} px",
            expected="the same size",
            fix="make the trimap from this image, or resize it with nearest-neighbour interpolation",
        )


def require_out(out: Any, trimap: Sliceable) -> None:
    """InputError unless the output can be written and is floating point of the trimap's shape."""
    fits = _sliceable(out) and hasattr(out, "__setitem__") and tuple(out.shape) == tuple(trimap.shape)
    if not fits or _dtype(out) not in (np.float16, np.float32, np.float64):
        got = f"{out.dtype} with shape {out.shape}" if _sliceable(out) else type(out).__name__
        raise InputError(
            "cannot write the alpha into this array",
            got=got,
            expected=f"float16, float32 or float64 with shape {tuple(trimap.shape)}, writable by slices",
        )
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise InputError("cannot write the alpha into this array", got="a read-only array")


def _sliceable(array: Any) -> bool:
    return all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__"))


def _dtype(array: Any) -> np.dtype[Any] | None:
    """None for the types of other libraries, which numpy does not know."""
    try:
        known: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:
        return None
    return known
