"""A run's state in half its size: small enough to ship beside the weights, so that others can go on.

Adam moves a weight by about the learning rate, which is more than float16 rounds it by, and the moments need
range, not digits. A packed state does not go on to the bits that the whole one would have.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dim.errors import InputError
from dim.files import replace_folder
from dim_training.run_state import whole_state

Rounding = Callable[[Tensor], Tensor]


def pack_run(run: Path, output: Path) -> int:
    """Write ``output/last/``, from which ``--resume`` goes on, and ``output/metrics.csv``.

    Weights and their averages become float16, the optimiser's moments bfloat16; loading makes them float32
    again. Schedule, random states and position are copied.

    Args:
        run: folder of a run.
        output: folder to make.

    Returns:
        Bytes written.

    Raises:
        InputError: no whole state in the run, the output exists, or a weight is beyond float16.
    """
    state = whole_state(run)
    if state is None:
        raise InputError(f"cannot pack {run}", got="no last/ in it", expected="the folder of a run")
    if output.exists():
        raise InputError(f"cannot write {output}", got="it exists", fix="name another folder, or remove it")
    with replace_folder(output) as new:
        (new / "last").mkdir()
        for file in sorted(state.iterdir()):
            _pack(file, new / "last" / file.name)
        if (run / "metrics.csv").is_file():
            shutil.copyfile(run / "metrics.csv", new / "metrics.csv")
    return sum(file.stat().st_size for file in output.rglob("*") if file.is_file())


def _pack(source: Path, target: Path) -> None:
    if source.suffix == ".safetensors":
        save_file(_rounded(load_file(source), _half), target)
        target.chmod(0o644)  # save_file leaves one that only its owner can read
    elif source.name.startswith("optimizer"):
        torch.save(_rounded(_load(source), Tensor.bfloat16), target)
    elif source.name.startswith("custom_checkpoint"):
        torch.save(_rounded(_load(source), _half), target)
    else:
        shutil.copyfile(source, target)


def _load(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _rounded(value: Any, rounding: Rounding) -> Any:
    """The same structure with every float32 tensor rounded, but for numbers (counts of steps)."""
    if isinstance(value, Tensor):
        return rounding(value) if value.dtype == torch.float32 and value.ndim > 0 else value
    if isinstance(value, dict):
        return {key: _rounded(item, rounding) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, rounding) for item in value]
    return value


def _half(value: Tensor) -> Tensor:
    half = value.half()
    if value.isfinite().all() and not half.isfinite().all():
        raise InputError(
            "cannot pack a weight as float16",
            got=f"{value.abs().max():g}",
            expected=f"at most {torch.finfo(torch.float16).max:g}",
        )
    return half
