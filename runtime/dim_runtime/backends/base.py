"""What every back end offers to the tiler, and how much memory the network takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, Protocol

from dim.arrays import Floating, UInt8
from dim.contract import STRIDE, ArtefactMetadata
from dim_runtime.errors import ArtefactError, BackendError, InputError


class Backend(Protocol):
    """A loaded artefact. Classes that inherit from this one get the rest from here;
    :attr:`metadata` and :meth:`run` are their own."""

    @property
    def metadata(self) -> ArtefactMetadata:
        """The artefact's document: context, stride, precision, frozen shape."""
        ...

    @property
    def preferred_batch(self) -> int:
        """Windows of one shape that :meth:`run` is best given together; 1 where more gain nothing."""
        return 1

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Alpha of a batch of windows.

        Args:
            image: uint8 N, H, W, 3, RGB 0-255; H and W multiples of 32.
            trimap: uint8 N, H, W: 0 background, 128 unknown, 255 foreground.

        Returns:
            Floating point N, H, W in [0, 1]; the tiler sets known pixels to 0 and 1 itself.
        """
        ...

    def expect(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        """A hint: the shapes N, H, W that are run next, in order. What they need may be prepared together."""
        return

    def run_on_device(self, image: Any, trimap: Any) -> Any:
        """Alpha of a batch of windows that lie in the memory of the back end's GPU; nothing is copied.

        Args:
            image: uint8 N, H, W, 3, RGB, contiguous; any array that speaks DLPack; H and W multiples of 32.
            trimap: uint8 N, H, W, as above. Both must be complete: synchronise the stream that makes them.

        Returns:
            An array that speaks DLPack, float32 N, H, W in [0, 1], on the same GPU, complete.

        Raises:
            BackendError: a back end that computes in the computer's own memory.
            InputError: another dtype, shape or device.
        """
        raise BackendError(
            "cannot run windows that lie on a GPU with this back end",
            why="it takes arrays in the computer's own memory",
            fix='device="cuda" with ONNX Runtime (extra "gpu"), an engine of TensorRT, or numpy arrays',
        )

    def window_bytes(self, height: int, width: int) -> int:
        """Upper bound of the memory that :meth:`run` takes, and gives back, for one window; bytes."""
        return network_bytes(self.metadata, height * width)

    def peak_bytes(self, shapes: Iterable[tuple[int, int]]) -> int:
        """Upper bound of the memory that windows H, W take, run one after the other; bytes."""
        return max(starmap(self.window_bytes, shapes), default=0)

    def close(self) -> None:
        """Free the engine; the back end is not used afterwards."""


FULL_RESOLUTION_MAPS = 4
"""Float32 feature maps of 64 × width channels alive at once, at the last unpooling: the routed values, their
concatenation, the interleaved map and the convolution's output in the engine's own layout."""
SMALL_TENSORS = 24
"""Bytes per pixel of what does not grow with the width: image, trimap, alpha and what is made of them."""
REFINER_TENSORS = 20
"""The same for what waits for the refiner: normalised colours, logits and alpha."""
CUE_TENSORS = 12
"""The same for the cues, which wait for the refiner's first convolution."""
QUANTISED_CHANNEL, QUANTISED_PIXEL = 11.5, 295
"""The same for int8 graphs, bytes for each of 64 × width channels and for each pixel: fewer maps in float,
and the kernels' own copies. Measured, as are the others, in ONNX Runtime at widths 0.25 and 1."""
ENGINE_BYTES = 24 * 10**6
"""Threads, kernels' scratch memory and what an engine allocates on its first run."""
MARGIN = 1.05
"""Allocators take memory in steps: of two windows of nearly one size one may take a quarter more."""


def network_bytes(metadata: ArtefactMetadata, pixels: int) -> int:
    """Memory of one forward pass, weights excluded, from the maps that are alive together; bytes.

    fp16 graphs take as much as fp32: on a CPU they are computed in float32.
    """
    channels = metadata.network.channels(64)
    if metadata.precision == "int8":
        per_pixel = QUANTISED_CHANNEL * channels + QUANTISED_PIXEL
    else:
        per_pixel = FULL_RESOLUTION_MAPS * 4 * channels + SMALL_TENSORS
        per_pixel += REFINER_TENSORS * metadata.network.has_refiner
    per_pixel += CUE_TENSORS * bool(metadata.network.cue_radii)
    return ENGINE_BYTES + round(MARGIN * per_pixel * pixels)


def require_single_windows(path: Path, metadata: ArtefactMetadata) -> None:
    """ArtefactError for a shape that is frozen to several windows: the tiler gives them one by one."""
    if metadata.static_shape is None:
        return
    count, height, width = metadata.static_shape
    if count != 1:
        raise ArtefactError(
            f"cannot tile with {path}",
            got=f"a shape frozen to N, H, W = {metadata.static_shape}",
            expected="N = 1, or free shapes",
            why="windows are run one by one",
            fix=f"export again without --shape, or with --shape 1,{height},{width}",
        )


def require_windows(image: tuple[int, ...], trimap: tuple[int, ...]) -> None:
    """InputError for shapes that are no batch of windows; an engine may compute nonsense from them."""
    if len(trimap) == 3 and image == (*trimap, 3) and not any(side % STRIDE for side in trimap[1:]):
        return
    raise InputError(
        "cannot run these windows",
        got=f"image {image}, trimap {trimap}",
        expected=f"image N, H, W, 3 and trimap N, H, W; H and W multiples of {STRIDE}",
    )


def first_line(error: Exception) -> str:
    """What an engine says went wrong, without the call stack that it may append."""
    return str(error).strip().partition("\n")[0]
