"""Masks of the salient object, by other people's networks: an ONNX file, or a model of the package rembg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dim.arrays import Float32, Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.extras import require
from dim.files import problem_of
from dim_runtime.backends.base import first_line

DEFAULT_SIDE = 320
"""Side of the input of a model with free shapes, pixels: U²-Net's."""
LARGEST_SIDE = 4096
"""Side of the largest input that is tried, pixels: 200 MB."""
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
"""Mean of the ImageNet training set, RGB, on the scale 0-1."""
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
"""Standard deviation of the ImageNet training set, RGB, on the scale 0-1."""


class MaskModel:
    """A salient-object network in the layout that rembg uses: U²-Net, Silueta and their relatives.

    One input, float32 1, 3, S, S: RGB divided by the image's largest value, then by mean and deviation of
    ImageNet. The first output, float32 1, 1, S, S, is stretched to [0, 1].

    Args:
        path: the ONNX file. Weights in further files are refused.

    Raises:
        InputError: no such file, or a network of another layout.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        require("run a mask model", "onnxruntime", extra="cpu")
        import onnxruntime

        problem = problem_of(path)
        if problem is not None:
            raise InputError(f"cannot read the mask model {path}", got=problem)
        options = onnxruntime.SessionOptions()
        # Its errors are raised; it prints them as well.
        options.log_severity_level = 4
        try:
            # From bytes: a file that names further files could read any file of this machine.
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InputError(f"cannot open the mask model {path}", why=str(error)[:300]) from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else ()
        if not _is_layout(shape):
            raise InputError(
                f"cannot use the mask model {path}",
                got=", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs),
                expected=f"one input, float32 1, 3, S, S with S of at most {LARGEST_SIDE}",
            )
        self._path, self._name = path, inputs[0].name
        self._size = tuple(side if isinstance(side, int) else DEFAULT_SIDE for side in shape[2:])

    def mask(self, image: Image) -> UInt8:
        """Return the mask of a photograph.

        Args:
            image: uint8 or uint16 H, W, 3, RGB.

        Returns:
            uint8 H, W; 255 inside the object.

        Raises:
            InputError: the network cannot be run, or its output is no mask.
        """
        height, width = self._size
        small = cv2.resize(eight_bits(image), (width, height), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        scaled = small / max(float(small.max()), 1e-6)
        planes = ((scaled - MEAN) / DEVIATION).transpose(2, 0, 1)[None]
        found = self._output(np.ascontiguousarray(planes))
        plane = found.reshape(found.shape[-2:]) if found.size == np.prod(found.shape[-2:]) else None
        if plane is None or plane.size == 0 or not np.isfinite(plane).all() or plane.max() <= plane.min():
            empty = plane is None or plane.size == 0
            raise InputError(
                f"cannot use the output of the mask model {self._path}",
                got=f"shape {found.shape}" if empty else "no finite values that differ",
                expected="one plane",
            )
        stretched = (plane - plane.min()) / (plane.max() - plane.min()) * 255
        return _enlarged(stretched.astype(np.float32), image)

    def _output(self, planes: Float32) -> Float32:
        """Return the first output, of two axes or more."""
        try:
            first = self._session.run(None, {self._name: planes})[0]
        except Exception as error:
            raise InputError(
                f"cannot run the mask model {self._path}",
                got=f"an input of shape {planes.shape}",
                why=first_line(error),
                fix="export the model again, for one image at a time",
            ) from error
        if not isinstance(first, np.ndarray) or first.dtype.kind not in "fiu" or first.ndim < 2:
            got = (
                f"{first.dtype} of shape {first.shape}"
                if isinstance(first, np.ndarray)
                else type(first).__name__
            )
            raise InputError(
                f"cannot use the output of the mask model {self._path}",
                got=got,
                expected="one plane of numbers",
            )
        return first.astype(np.float32)


def _is_layout(shape: Sequence[int | str | None]) -> bool:
    """Return whether an input is N, 3, H, W, where N may be 1 and all three but the channels may be free."""
    if len(shape) != 4 or shape[1] != 3 or (isinstance(shape[0], int) and shape[0] != 1):
        return False
    return all(not isinstance(side, int) or 1 <= side <= LARGEST_SIDE for side in shape[2:])


def rembg_mask(image: Image, name: str) -> UInt8:
    """Return the mask of a model of the package rembg, which downloads the model if it is not there yet.

    Args:
        image: uint8 or uint16 H, W, 3, RGB.
        name: as rembg names it, such as "u2net" or "isnet-general-use".

    Returns:
        uint8 H, W; 255 inside the object.

    Raises:
        MissingExtraError: rembg is not installed.
        InputError: rembg does not know the model, or could not get it.
    """
    require("make a mask with rembg", "rembg", extra="auto")
    import rembg

    try:
        session = rembg.new_session(name)
        found: Any = rembg.remove(eight_bits(image), session=session, only_mask=True)
    except Exception as error:
        raise InputError(f"cannot make a mask with rembg's model {name!r}", why=str(error)[:300]) from error
    return np.asarray(found, np.uint8).reshape(image.shape[:2])


def _enlarged(plane: Any, image: Image) -> UInt8:
    large = cv2.resize(plane, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.round(large), 0, 255), np.uint8)
