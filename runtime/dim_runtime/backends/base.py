"""The interface of all back ends, and the memory that the network takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dim.arrays import Floating, UInt8, WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, STRIDE, ArtefactMetadata
from dim.contract.cropping import NO_MARGINS, Margins
from dim_runtime.errors import AlphaError, ArtefactError, BackendError, InputError

Number = TypeVar("Number", bound=np.generic)


class Estimate(NamedTuple):
    """Output of the network for a batch of windows, floating N, H, W in [0, 1].

    Attributes:
        alpha: the opacity.
        trust: share of this alpha that its propagation keeps; None if nothing remains to be propagated.
    """

    alpha: Floating
    trust: Floating | None = None


class WindowCall(NamedTuple):
    """A coming call: the shape N, H, W of its windows, and their margins."""

    shape: WindowShape
    margins: Margins = NO_MARGINS


class Backend(ABC):
    """A loaded artefact. A subclass defines :attr:`metadata` and :meth:`run`; the rest has defaults."""

    @property
    @abstractmethod
    def metadata(self) -> ArtefactMetadata:
        """The artefact's document: context, stride, precision, frozen shape."""

    @abstractmethod
    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        """Compute the alpha of a batch of windows.

        Args:
            image: uint8 N, H, W, 3, RGB 0-255; H and W multiples of 32.
            trimap: uint8 N, H, W: 0 background, 128 unknown, 255 foreground.

        Returns:
            Floating point N, H, W in [0, 1]; the tiler sets known pixels to 0 and 1 itself.
        """

    @property
    def preferred_batch(self) -> int:
        """Number of windows of one shape that :meth:`run` should get together; 1 if more gain nothing."""
        return 1

    @property
    def in_flight(self) -> int:
        """Number of calls of :meth:`run`, of any windows, that should run at one time, in threads; 1 if more
        gain nothing.

        Where it is above 1, :meth:`window_bytes` counts the window's own arrays too.
        """
        return 1

    def calls_at_once(self, shapes: Sequence[tuple[int, int]]) -> int:
        """Return how many windows of a plan should run at one time, in threads, at most.

        Args:
            shapes: H, W of all windows, in order; one or more.
        """
        return self.in_flight

    @property
    def crops(self) -> bool:
        """Whether :meth:`run_core` computes fewer pixels of the margins than :meth:`run`."""
        return False

    @property
    def phases(self) -> bool:
        """Whether :meth:`run_core` leaves the propagation of alpha to :meth:`propagate`."""
        return False

    def run_core(
        self, image: UInt8, trimap: UInt8, margins: Margins, beyond: Margins = NO_MARGINS
    ) -> Estimate:
        """Compute what lies inside the margins of a batch of windows.

        Args:
            image: as :meth:`run` takes it.
            trimap: the same.
            margins: of every window of the batch.
            beyond: how far into the margins the result reaches; at most
                :func:`~dim.contract.cropping.output_margins` where :attr:`crops` is true.

        Returns:
            Without the rest of the margins. Where :attr:`phases` is true, alpha is not propagated yet.
        """
        return Estimate(inside(valid_alpha(self.run(image, trimap), trimap.shape), margins.less(beyond)))

    def propagate(self, image: UInt8, trimap: UInt8, estimate: Estimate) -> Floating:
        """Propagate alpha along colour lines in a batch of windows, where :attr:`phases` is true.

        Args:
            image: as :meth:`run` takes it.
            trimap: the same.
            estimate: float32 N, H, W, with trust; read where the trimap is unknown.

        Returns:
            Floating point N, H, W in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} propagates within run()")

    def expect(self, calls: Sequence[WindowCall], at_once: int = 1) -> None:  # noqa: B027 - optional
        """Receive the next calls of :meth:`run` or :meth:`run_core`, in order, to prepare for them.

        Args:
            calls: each once.
            at_once: how many of them are made at one time, in threads.
        """

    def run_on_device(self, image: Any, trimap: Any) -> Any:
        """Compute the alpha of a batch of windows in the memory of the back end's GPU, without copies.

        Args:
            image: uint8 N, H, W, 3, RGB, contiguous; any array that supports DLPack; H and W multiples of 32.
            trimap: uint8 N, H, W, as above. Work that is still queued for either is waited for through
                DLPack's stream exchange.

        Returns:
            An array that supports DLPack, float32 N, H, W in [0, 1], on the same GPU, complete. Its memory is
            released on the GPU's default stream: synchronise other streams that use it before dropping it.

        Raises:
            BackendError: the back end computes in the computer's own memory.
            InputError: another dtype, shape or device.
        """
        raise BackendError(
            "cannot run windows that are in a GPU's memory with this back end",
            why="it takes arrays in the computer's own memory",
            fix='device="cuda" with ONNX Runtime (extra "gpu"), an engine of TensorRT, or numpy arrays',
        )

    def window_bytes(self, height: int, width: int) -> int:
        """Return an upper bound of the memory that :meth:`run` takes, and frees, for one window; bytes."""
        return network_bytes(self.metadata, height * width)

    def peak_bytes(self, shapes: Iterable[tuple[int, int]]) -> int:
        """Return an upper bound of the memory for windows H, W that run one after the other; bytes."""
        return max(starmap(self.window_bytes, shapes), default=0)

    def further_bytes(self, height: int, width: int) -> int:
        """Return an upper bound of the memory of each further window that runs at the same time; bytes."""
        return self.window_bytes(height, width)

    def release_memory(self) -> None:  # noqa: B027 - optional
        """Return memory that is kept for another window like the last one."""

    def before_propagation(self) -> None:  # noqa: B027 - optional
        """Return what windows of the network keep, where that costs little time.

        It is called between both phases, if there was more than one window. A back end that keeps the memory
        counts it in :meth:`peak_bytes`.
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Free the engine; the back end is not used afterwards."""


def inside(planes: npt.NDArray[Number], margins: Margins) -> npt.NDArray[Number]:
    """Return N, H, W without the margins."""
    height, width = planes.shape[-2:]
    return planes[..., margins.top : height - margins.bottom, margins.left : width - margins.right]


FULL_RESOLUTION_MAPS = 4
"""Float32 feature maps of 64 × width channels alive at once, at the last unpooling: the enlarged values,
which of them are kept, their product, and the convolution's output in the engine's own layout."""
SMALL_TENSORS = 24
"""Bytes per pixel that do not grow with the width: image, trimap, alpha and their intermediate forms."""
REFINER_TENSORS = 20
"""Bytes per pixel of the tensors kept for the refiner: normalised colours, logits and alpha."""
CUE_TENSORS = 12
"""Bytes per pixel of the cues, kept for the refiner's first convolution."""
QUANTISED_CHANNEL, QUANTISED_PIXEL = 11.5, 295
"""Bytes of int8 graphs for each of 64 × width channels and for each pixel: fewer maps in float, and the
kernels' own copies. Measured, like the others, in ONNX Runtime at widths 0.25 and 1."""
ENGINE_BYTES = 24 * 10**6
"""Bytes of threads, of the kernels' scratch memory, and of allocations of an engine's first run."""
MARGIN = 1.05
"""Factor for allocators, which take memory in steps: two windows of similar size may differ by a quarter."""


def network_bytes(metadata: ArtefactMetadata, pixels: int) -> int:
    """Return the memory of one forward pass, weights excluded, from the maps alive together; bytes.

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
    """Raise ArtefactError for a shape frozen to several windows: the tiler runs them one by one."""
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


class Tensor(NamedTuple):
    """An input or output of a graph: numpy's name of its dtype, and its number of axes."""

    dtype: str
    axes: int


CONTRACT = {
    INPUT_IMAGE: Tensor("uint8", 4),
    INPUT_TRIMAP: Tensor("uint8", 3),
    OUTPUT_ALPHA: Tensor("float32", 3),
}
"""The tensors of every artefact, see :mod:`dim.contract`."""


def require_contract(path: Path, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
    """Raise ArtefactError if a graph that was opened has other inputs, or another alpha, than an artefact."""
    named = {INPUT_IMAGE, INPUT_TRIMAP} == set(inputs) and OUTPUT_ALPHA in outputs
    found = {**inputs, **outputs}
    if named and all(found[name] == tensor for name, tensor in CONTRACT.items()):
        return
    raise ArtefactError(
        f"cannot use {path}: its inputs and outputs are not those of an artefact",
        got=_listed(found),
        expected=_listed(CONTRACT),
        why="the metadata of this toolkit is in a graph of other origin",
        fix="export the checkpoint again: dim-export onnx CHECKPOINT -o MODEL.onnx",
    )


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {dtype} of {axes} axes" for name, (dtype, axes) in tensors.items()) or "none"


def require_windows(image: tuple[int, ...], trimap: tuple[int, ...]) -> None:
    """Raise InputError for shapes that are no batch of windows; an engine may compute nonsense from them."""
    if len(trimap) == 3 and image == (*trimap, 3) and not any(side % STRIDE for side in trimap[1:]):
        return
    raise InputError(
        "cannot run these windows",
        got=f"image {image}, trimap {trimap}",
        expected=f"image N, H, W, 3 and trimap N, H, W; H and W multiples of {STRIDE}",
    )


ALPHA_TOLERANCE = 1e-3
"""Distance outside of [0, 1] that rounding explains, and that is clipped. More is an error."""


def valid_alpha(alpha: object, shape: tuple[int, ...]) -> Floating:
    """Return the alpha of a back end, floating N, H, W in [0, 1]; clipped if rounding left the range.

    Two passes over the values: 0.005 % of the time of a window (`--bench` of tests/runtime/inference).

    Raises:
        AlphaError: no floating array of this shape, NaN, infinity, or values outside of [0, 1].
    """
    if not isinstance(alpha, np.ndarray) or alpha.dtype.kind != "f" or alpha.shape != shape:
        got = f"{alpha.dtype} {alpha.shape}" if isinstance(alpha, np.ndarray) else type(alpha).__name__
        raise _no_alpha(got, shape)
    low, high = (float(alpha.min()), float(alpha.max())) if alpha.size else (0.0, 0.0)
    # NaN makes both comparisons false.
    if not (low >= -ALPHA_TOLERANCE and high <= 1 + ALPHA_TOLERANCE):
        raise _no_alpha(f"values from {low:g} to {high:g}", shape)
    return alpha if low >= 0 and high <= 1 else np.clip(alpha, 0, 1)


def _no_alpha(got: str, shape: tuple[int, ...]) -> AlphaError:
    return AlphaError(
        "cannot use the alpha that the back end computed",
        got=got,
        expected=f"a floating array {shape} with finite values in [0, 1]",
        why="the model is damaged or of another kind, or the engine computes wrongly",
        fix="export the checkpoint again: dim-export onnx CHECKPOINT -o MODEL.onnx; or use another back end",
    )


def first_line(error: Exception) -> str:
    """Return the first line of an engine's error, without the call stack that may follow."""
    return str(error).strip().partition("\n")[0]
