"""Copy a run's state at half of its size or less, to ship beside the weights or to continue elsewhere.

Adam moves a weight by about the learning rate, which is more than float16 rounds it by. The moments need
range, not digits. Without them Adam starts again from zero: its first steps have nearly the size of the
learning rate each, in all weights. A run that continues from a packed state does not end in the bits of one
that continues from the whole state.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from dim.errors import InputError
from dim.files import replace_folder
from dim_training.run_folder import CONFIG
from dim_training.run_log import METRICS, METRICS_LINES
from dim_training.run_state import read_state, whole_state, write_state


def pack_run(run: Path, output: Path, *, moments: bool = True) -> int:
    """Write ``output/last/``, from which ``--resume`` continues, ``config.json`` and the metrics.

    Weights and their averages become float16, the optimiser's moments bfloat16; loading makes them float32
    again. The position and the states of the generators are copied.

    Args:
        run: folder of a run.
        output: folder to make.
        moments: keep the optimiser's moments: half of the packed state, or two thirds without averages.

    Returns:
        Bytes written.

    Raises:
        InputError: no whole state in the run, the output exists, or a weight is beyond float16.
    """
    folder = whole_state(run)
    if folder is None:
        raise InputError(f"cannot pack {run}", got="no last/ in it", expected="the folder of a run")
    if output.exists():
        raise InputError(f"cannot write {output}", got="it exists", fix="name another folder, or remove it")
    state = read_state(run)
    for network in filter(None, (state.model, state.averaged)):
        for value in network.state_dict().values():
            _require_half(value)
    rounded = {key: _rounded(value) for key, value in (state.moments or {}).items()}
    kept = moments and state.moments is not None
    with replace_folder(output) as new:
        write_state(new / "last", state._replace(moments=rounded if kept else None), half=True)
        for file in folder.glob("random-*.safetensors"):
            shutil.copyfile(file, new / "last" / file.name)
        for name in (CONFIG, METRICS, METRICS_LINES):
            if (run / name).is_file():
                shutil.copyfile(run / name, new / name)
    return sum(file.stat().st_size for file in output.rglob("*") if file.is_file())


def _rounded(value: Tensor) -> Tensor:
    """Return a moment as bfloat16; a count of steps, which is a number, stays."""
    return value.bfloat16() if value.dtype == torch.float32 and value.ndim > 0 else value


def _require_half(value: Tensor) -> None:
    if value.is_floating_point() and not value.half().isfinite().all():
        raise InputError(
            "cannot pack a weight as float16",
            got=f"{value.abs().max():g}",
            expected=f"at most {torch.finfo(torch.float16).max:g}",
        )
