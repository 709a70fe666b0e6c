"""Predictors to score: a checkpoint, through PyTorch, or an artefact, through the runtime that ships.

PyTorch takes seconds to import, and artefacts do without it: only the functions that need it import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.contract import STRIDE
from dim.errors import InputError
from dim.extras import require
from dim.trimap import apply_known

if TYPE_CHECKING:
    import torch

    from dim.network import DIM
    from dim_runtime import Matting

ARTEFACT_SUFFIXES = frozenset({".onnx", ".engine"})


class TooLargeError(InputError):
    """A photograph does not fit into the memory of the network's device as a whole."""


class Predictor(Protocol):
    """Image and trimap to alpha."""

    def __call__(self, image: UInt8, trimap: UInt8) -> UInt8:
        """Return alpha uint8 H, W of an image, uint8 H, W, 3, RGB, and a canonical trimap, uint8 H, W."""
        ...


def is_artefact(path: Path) -> bool:
    """Return whether the runtime opens a file, and not PyTorch: by its suffix, else by its first bytes."""
    if path.suffix in ARTEFACT_SUFFIXES or not path.is_file():
        return path.suffix in ARTEFACT_SUFFIXES
    with path.open("rb") as file:
        head = file.read(9)
    # An ONNX file begins with field 1, a number. So may the length of a safetensors header: JSON follows it.
    return head[:1] == b"\x08" and head[8:] != b"{"


@contextmanager
def open_predictor(
    path: Path, *, device: str = "cpu", tile: int | None = None, threads: int | None = None
) -> Iterator[Predictor]:
    """Load a checkpoint or an artefact.

    Args:
        path: what :func:`dim.checkpoint.load` or :class:`dim_runtime.Matting` reads.
        device: "cpu", "cuda" or "cuda:N"; one that is not there is an error.
        tile: artefacts: largest window side, pixels; None for the runtime's default.
        threads: artefacts: threads of one operator; None leaves the choice to the engine.

    Raises:
        InputError: a tile for a checkpoint.
        DimError: a file that cannot be used, or a device that is not there.
    """
    if is_artefact(path):
        with _artefact(path, device, tile, threads) as matting:
            yield partial(_matte, matting)
    elif tile is not None:
        raise InputError(
            f"cannot score {path} in tiles of {tile} px",
            got="a checkpoint, which sees whole photographs, as the published test does",
            expected="an artefact",
            fix="leave out --tile, or: dim-export onnx CHECKPOINT -o MODEL.onnx",
        )
    else:
        with _network(path, device) as network:
            yield network


def _artefact(path: Path, device: str, tile: int | None, threads: int | None) -> Matting:
    from dim_runtime import Matting
    from dim_runtime.planning.planner import DEFAULT_TILE

    return Matting(path, device=device, tile=DEFAULT_TILE if tile is None else tile, threads=threads)


def _matte(matting: Matting, image: UInt8, trimap: UInt8) -> UInt8:
    return quantise8(matting(image, trimap))


@contextmanager
def _network(path: Path, device: str) -> Iterator[Predictor]:
    require("score a checkpoint", "torch", "safetensors", extra="training")
    import torch

    from dim.checkpoint import load
    from dim_training.devices import float32_convolutions, require_device

    model = load(path).to(require_device(device)).to(memory_format=torch.channels_last)
    with float32_convolutions(tf32=False):
        yield partial(predict, model)


def predict(model: DIM, image: UInt8, trimap: UInt8) -> UInt8:
    """Return a network's alpha of a whole photograph, as the published test computes it.

    The image is reflected to multiples of 32 at the bottom and the right; alpha is cropped back and rounded
    half to even, and known pixels are forced.

    Args:
        model: in eval mode, on any device.
        image: uint8 H, W, 3, RGB.
        trimap: canonical, uint8 H, W.

    Returns:
        uint8 H, W.

    Raises:
        TooLargeError: the photograph does not fit into the device's memory.
        InputError: the network computes NaN.
    """
    import torch

    height, width = trimap.shape
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            alpha = model(_network_input(image, trimap, device))[0, 0, :height, :width].float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise TooLargeError(
            f"cannot predict a photograph of {_size(trimap)} as a whole",
            got=f"out of memory on {device}",
            fix="--device cpu, or an artefact, which is cut into windows: dim-export onnx CHECKPOINT -o "
            "MODEL.onnx",
        ) from error
    if not np.isfinite(alpha).all():
        raise InputError(
            "cannot score this network",
            got=f"an alpha with NaN for a photograph of {_size(trimap)}",
            expected="finite numbers",
            fix="use a checkpoint from before the training diverged",
        )
    return apply_known(quantise8(alpha), trimap)


class ValidationPredictor:
    """Predict whole photographs on the network's device, and on the CPU those that do not fit there.

    The optimiser and a large batch may leave little memory of a GPU. Alphas of the CPU differ by rounding.

    Args:
        model: in eval mode; its weights must not change meanwhile.
        note: called with one line for each photograph that is predicted on the CPU.
    """

    def __init__(self, model: DIM, note: Callable[[str], None]) -> None:
        self.model, self.note = model, note
        self._on_cpu: DIM | None = None

    def __call__(self, image: UInt8, trimap: UInt8) -> UInt8:
        """Return alpha as :func:`predict` does; TooLargeError if it does not fit on the CPU either."""
        try:
            return predict(self.model, image, trimap)
        except TooLargeError as error:
            self.note(f"{error.got} for a photograph of {_size(trimap)}: it is scored on the CPU")
        # Outside the handler, whose traceback keeps the tensors of the failed attempt.
        if self._on_cpu is None:
            self._on_cpu = _copy_on_cpu(self.model)
        return predict(self._on_cpu, image, trimap)


def _copy_on_cpu(model: DIM) -> DIM:
    import torch

    from dim.network import DIM

    copy = DIM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(memory_format=torch.channels_last).eval()


def _size(trimap: UInt8) -> str:
    return f"{trimap.shape[1]}×{trimap.shape[0]} px"


def _network_input(image: UInt8, trimap: UInt8, device: torch.device) -> torch.Tensor:
    """Return float32 1, 4, H, W, channels last; H and W reflected to multiples of 32."""
    import torch

    from dim.network import normalise

    pad = ((0, -trimap.shape[0] % STRIDE), (0, -trimap.shape[1] % STRIDE))
    colours = torch.from_numpy(np.pad(image, (*pad, (0, 0)), mode="reflect")).to(device).permute(2, 0, 1)
    trimaps = torch.from_numpy(np.pad(trimap, pad, mode="reflect")).to(device)
    return normalise(colours[None], trimaps[None, None]).contiguous(memory_format=torch.channels_last)
