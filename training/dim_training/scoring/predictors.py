"""What can be scored: a checkpoint, through PyTorch; an exported artefact, through the runtime that ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.errors import InputError
from dim_runtime.backends.device import parse_device
from dim_runtime.errors import DeviceError

if TYPE_CHECKING:
    import torch

    from dim_runtime import Matting

ARTEFACT_SUFFIXES = frozenset({".onnx", ".engine"})


class Predictor(Protocol):
    """Image and trimap to alpha."""

    def __call__(self, image: UInt8, trimap: UInt8) -> UInt8:
        """Args: ``image`` uint8 H, W, 3, RGB; ``trimap`` canonical, uint8 H, W. Returns alpha uint8 H, W."""
        ...


def is_artefact(path: Path) -> bool:
    """Whether a file is for the runtime and not for PyTorch: by its suffix, else by its first bytes."""
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
        with _network(path, device) as predict:
            yield predict


def _artefact(path: Path, device: str, tile: int | None, threads: int | None) -> Matting:
    from dim_runtime import Matting
    from dim_runtime.planning.planner import DEFAULT_TILE

    return Matting(path, device=device, tile=DEFAULT_TILE if tile is None else tile, threads=threads)


def _matte(matting: Matting, image: UInt8, trimap: UInt8) -> UInt8:
    return quantise8(matting(image, trimap))


@contextmanager
def _network(path: Path, device: str) -> Iterator[Predictor]:
    # PyTorch takes seconds to import, and artefacts do without it.
    import torch

    from dim.checkpoint import load
    from dim_training.scoring.prediction import full_float32, predict

    model = load(path).to(_torch_device(device)).to(memory_format=torch.channels_last)
    with full_float32():
        yield partial(predict, model)


def _torch_device(name: str) -> torch.device:
    import torch

    device = parse_device(name)
    if device.kind == "cuda" and device.number >= torch.cuda.device_count():
        raise DeviceError(
            f"cannot use the device {name!r}",
            got=f"PyTorch {torch.__version__} with {torch.cuda.device_count()} CUDA devices",
            expected=f"at least {device.number + 1}",
            fix="--device cpu, or install PyTorch's CUDA build and the driver",
        )
    return torch.device(name)
