"""The front door: image and trimap in, alpha out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import dim.trimap
from dim.contract import ArtefactMetadata
from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.backends.opening import BackendName, Precision, open_backend
from dim_runtime.errors import TrimapWarning
from dim_runtime.geometry import Plan
from dim_runtime.memory import resident_bytes
from dim_runtime.occupancy import Survey, survey
from dim_runtime.planning import Context, Options, Planner
from dim_runtime.progress import reporting
from dim_runtime.tiling import Progress, run_plan

UInt8 = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8 | np.uint16]
Alpha = npt.NDArray[np.float32]

ALPHA_BYTES = 4


def default_model() -> Path:
    """The embedded artefact."""
    return Path(__file__).parent / "models" / "dim-compact.onnx"


class Matting:
    """Deep Image Matting without PyTorch, for images of any size.

    Args:
        model: an ``.onnx`` artefact of ``dim-export``; None takes the embedded compact model.
        backend: None takes ONNX Runtime for ``.onnx``.
        device: "cpu", "cuda" or "cuda:N"; one that is not there is an error.
        precision: None for the artefact's own.
        tile: largest window side, context included; a multiple of 32 pixels.
        context: "exact" gives the alpha of the whole image, whatever the tile; a smaller number of pixels (a
            multiple of 32) is faster and close to it, windows are then blended.
        threads: threads of one operator; None leaves the choice to the engine.
        memory_limit: peak resident memory of the process during a call, bytes; the caller's arrays, the model
            and the output count. The tile is lowered to keep it.
        progress: True shows a bar on standard error; a function is called with windows done and in all.

    Raises:
        dim_runtime.errors.ArtefactError: a model that is missing, damaged, or not of this toolkit.
        dim_runtime.errors.BackendError, DeviceError: an engine or device that is not there.
        dim.errors.InputError: an impossible option.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: BackendName | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        tile: int = 1536,
        context: Context = "exact",
        threads: int | None = None,
        memory_limit: int | None = None,
        progress: bool | Progress = False,
    ) -> None:
        # Before the model is loaded: a wrong option is told at once.
        self._options = Options(tile, context, memory_limit)
        self._progress = progress
        path = default_model() if model is None else Path(model)
        self._backend: Backend | None = open_backend(
            path, backend=backend, device=device, precision=precision, threads=threads
        )

    @classmethod
    def from_backend(
        cls,
        backend: Backend,
        *,
        tile: int = 1536,
        context: Context = "exact",
        memory_limit: int | None = None,
        progress: bool | Progress = False,
    ) -> Self:
        """A matting around any :class:`~dim_runtime.backends.base.Backend`: engines and tests of your own."""
        made = cls.__new__(cls)
        made._options = Options(tile, context, memory_limit)
        made._progress = progress
        made._backend = backend
        return made

    def __call__(self, image: Image, trimap: UInt8) -> Alpha:
        """Compute an alpha matte.

        Args:
            image: uint8 or uint16 H, W, 3, RGB over the full range of the type.
            trimap: uint8 H, W: 0 background, 128 unknown, 255 foreground. At most 10 and at least 245 are
                read as background and foreground, the rest as unknown, with a :class:`TrimapWarning`.

        Returns:
            float32 H, W in [0, 1]; exactly 0 and 1 where the trimap is known.

        Raises:
            InputError: wrong dtype, channels or size.
            TileError: the tile cannot hold the context.
            MemoryLimitError: no tile keeps the memory limit.
        """
        _validate(image, trimap)
        found = survey(trimap)
        if found.mapped:
            warnings.warn(TrimapWarning(found.mapped), stacklevel=2)
        plan = self._plan(trimap, found, file_backed=_file_backed(image) + _file_backed(trimap))
        alpha = np.empty(trimap.shape, np.float32)
        with reporting(self._progress) as progress:
            run_plan(self._open, image, trimap, plan, alpha, progress=progress)
        return alpha

    def plan(self, trimap: UInt8) -> Plan:
        """What a call with this trimap would compute and take, without running the network.

        Raises:
            InputError, TileError, MemoryLimitError: as the call does.
        """
        dim.trimap.validate(trimap)
        return self._plan(trimap, survey(trimap), file_backed=_file_backed(trimap))

    def map(self, pairs: Iterable[tuple[Image, UInt8]]) -> Iterator[Alpha]:
        """Alpha mattes of pairs of image and trimap, one after the other, in order."""
        return (self(image, trimap) for image, trimap in pairs)

    @property
    def metadata(self) -> ArtefactMetadata:
        """The artefact's document."""
        return self._open.metadata

    def close(self) -> None:
        """Free the engine. Closing twice is fine; calling afterwards is an error."""
        if self._backend is not None:
            self._backend.close()
        self._backend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> Backend:
        if self._backend is None:
            raise InputError("cannot use this Matting: it is closed", fix="make a new one")
        return self._backend

    def _plan(self, trimap: UInt8, found: Survey, *, file_backed: int) -> Plan:
        held = resident_bytes() + file_backed + ALPHA_BYTES * trimap.size
        return Planner(trimap.shape, found, self._open, self._options, held).plan()


def _validate(image: object, trimap: object) -> None:
    trimap = dim.trimap.validate(trimap)
    if not isinstance(image, np.ndarray):
        raise InputError("cannot use this image", got=type(image).__name__, expected="a numpy array, H, W, 3")
    if image.dtype not in (np.uint8, np.uint16) or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            "cannot use this image",
            got=f"{image.dtype} with shape {image.shape}",
            expected="uint8 or uint16 H, W, 3, RGB",
            fix="repeat a gray channel three times, drop a fourth channel; for floats in [0, 1]: "
            "(x * 255).round().astype('uint8')",
        )
    (height, width), (rows, columns) = image.shape[:2], trimap.shape
    if (height, width) != (rows, columns):
        raise InputError(
            "image and trimap differ in size",
            got=f"image of {width}×{height} px, trimap of {columns}×{rows} px",
            expected="the same size",
            fix="make the trimap from this image, or resize it with nearest-neighbour interpolation",
        )


def _file_backed(array: npt.NDArray[Any]) -> int:
    """Bytes of a memory-mapped array: its pages become resident only as windows read them."""
    return array.nbytes if isinstance(array, np.memmap) else 0
