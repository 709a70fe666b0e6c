"""Masks of the salient object, by other people's networks: an ONNX file, or a model of the package rembg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np

from dim.arrays import Float32, Floating, Image, UInt8
from dim.bit_depth import eight_bits
from dim.errors import InputError
from dim.extras import require
from dim.files import problem_of
from dim_runtime.backends.base import first_line

Layout = Literal["u2net", "isnet", "isnet-anime"]
"""What a network takes; see :data:`INPUTS`."""


class Input(NamedTuple):
    """The input of a network: RGB on the scale 0-1, less a mean, over a deviation.

    Attributes:
        mean, deviation: RGB.
        side: of the square, pixels, where the file leaves its shape free.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    side: int


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
INPUTS: Mapping[Layout, Input] = {
    "u2net": Input(IMAGENET_MEAN, IMAGENET_DEVIATION, 320),
    "isnet": Input((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), 1024),
    "isnet-anime": Input(IMAGENET_MEAN, (1.0, 1.0, 1.0), 1024),
}
"""Inputs as rembg prepares them. U²-Net's is also that of Silueta, BiRefNet and RMBG 2.0; ISNet's is also
that of RMBG 1.4. With the input of another one a network finds something else, and no error shows it."""
FILES: Mapping[str, Layout] = {
    "u2net": "u2net",
    "silueta": "u2net",
    "birefnet": "u2net",
    "bria-rmbg": "u2net",
    "isnet-general-use": "isnet",
    "isnet-anime": "isnet-anime",
}
"""Layouts by the first letters of the files that rembg downloads."""
LARGEST_SIDE = 4096
"""Side of the largest input that is tried, pixels: 200 MB."""
SLACK = 0.01
"""Farthest that an output which is a probability leaves 0-1, by rounding."""


class MaskModel:
    """A salient-object network as rembg runs them: U²-Net, ISNet, BiRefNet and their relatives.

    One input, float32 1, 3, S, S: RGB divided by the image's largest value, less a mean, over a deviation
    (:data:`INPUTS`). The first output, float32 1, 1, S, S, is a probability or its logit, and is stretched to
    [0, 1].

    Args:
        path: the ONNX file. Weights in further files are refused.
        layout: what the network takes. None finds it by the name that rembg gives the file
            (:data:`FILES`); other files with a side of 320 px or a free one are taken for U²-Nets.

    Raises:
        InputError: no such file, a network with another input, or a file whose layout must be given.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
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
        except Exception as error:  # ONNX Runtime has one class of errors for each status, none for all
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
        self._input = INPUTS[layout or _layout_of(path, shape)]
        self._size = tuple(side if isinstance(side, int) else self._input.side for side in shape[2:])

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
        shrinks = height <= image.shape[0] and width <= image.shape[1]
        filtering = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(eight_bits(image), (width, height), interpolation=filtering).astype(np.float32)
        scaled = resized / max(float(resized.max()), 1e-6)
        mean, deviation = (np.array(each, np.float32) for each in self._input[:2])
        planes = ((scaled - mean) / deviation).transpose(2, 0, 1)[None]
        plane = self._plane(np.ascontiguousarray(planes))
        stretched = (plane - plane.min()) / (plane.max() - plane.min()) * 255
        return _enlarged(stretched.astype(np.float32), image)

    def _plane(self, planes: Float32) -> Floating:
        """Return the probability of every pixel, S, S, of values that differ."""
        found = self._output(planes)
        height, width = found.shape[-2:]
        # The shape of the input, perhaps smaller: the classes of a classifier are no picture.
        similar = height * self._size[1] == width * self._size[0] and height > 1
        if found.size != height * width or not similar:
            raise self._no_mask(f"shape {found.shape}")
        plane: Floating = found.reshape(height, width)
        if plane.min() < -SLACK or plane.max() > 1 + SLACK:
            # Logits, as BiRefNet returns them; exp overflows beyond 700.
            plane = 1 / (1 + np.exp(-np.clip(plane.astype(np.float64), -700, 700)))
        if not np.isfinite(plane).all() or plane.max() <= plane.min():
            raise self._no_mask("no finite values that differ")
        return plane

    def _no_mask(self, got: str) -> InputError:
        return InputError(
            f"cannot use the output of the mask model {self._path}",
            got=got,
            expected=f"one plane of the shape of its input, {self._size[1]}×{self._size[0]}, or smaller",
        )

    def _output(self, planes: Float32) -> Float32:
        """Return the first output, of two axes or more."""
        try:
            first = self._session.run(None, {self._name: planes})[0]
        except Exception as error:  # as above
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


def _layout_of(path: Path, shape: Sequence[int | str | None]) -> Layout:
    """Return the layout that follows from a file's name or from the side of its input."""
    stem = path.stem.lower()
    for start, layout in FILES.items():
        if stem.startswith(start):
            return layout
    usual = INPUTS["u2net"].side
    if all(side == usual or not isinstance(side, int) for side in shape[2:]):
        return "u2net"
    raise InputError(
        f"cannot know the input of the mask model {path}",
        got=f"an input of {shape[3]}×{shape[2]} px, and a name that is none of rembg's",
        expected=f"one of the layouts {', '.join(get_args(Layout))}",
        why="networks of this size differ in mean and deviation of their input, and the file states neither",
        fix="--mask-layout isnet for ISNet (DIS) and RMBG 1.4, --mask-layout u2net for U²-Net, BiRefNet and "
        "RMBG 2.0; or the name that rembg gives the file",
    )


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
    except Exception as error:  # of its download, its models or ONNX Runtime
        raise InputError(f"cannot make a mask with rembg's model {name!r}", why=str(error)[:300]) from error
    return np.asarray(found, np.uint8).reshape(image.shape[:2])


def _enlarged(plane: Any, image: Image) -> UInt8:
    large = cv2.resize(plane, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.round(large), 0, 255), np.uint8)
