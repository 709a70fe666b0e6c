"""The state that a run is resumed from, in ``last/``: safetensors and JSON, so that reading it runs nothing.

``model.safetensors`` and ``averaged.safetensors`` are checkpoints in the format of :mod:`dim.checkpoint`,
which every command reads. ``optimizer.safetensors`` holds Adam's moments under ``PARAMETER.NAME``, if
``state.json`` does not state that a packed run goes without them,
``random-N.safetensors`` the generators of process N, and ``state.json`` the numbers. The learning rate is not
part of the state: it is a function of the step and of the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dim import checkpoint
from dim.documents import parse_json
from dim.errors import DimError, InputError
from dim.files import current_folder, remove_leftovers, replace_folder, write_bytes, write_text
from dim.frozen_model import FrozenModel
from dim.network import DIM
from dim_training.config import MOST_STEPS

FORMAT = 2
"""Version of the folder's layout; folders of version 1 hold pickles and have to be converted."""
STATE_FILE = "state.json"

DAMAGED = (
    SafetensorError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
)
"""Errors that damaged files of a state raise; OverflowError for numbers without end in JSON."""


@dataclass
class Position:
    """The progress of a run.

    Attributes:
        step: optimiser steps done.
        samples: global samples seen by all processes together.
        seconds: time spent, validation included.
        best: lowest mean SAD so far; infinite before the first validation.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    best: float = inf


class _Document(FrozenModel, strict=True, allow_inf_nan=False):
    """The numbers in ``state.json``. A state is saved after a step, so that it counts at least one."""

    step: int = Field(ge=1, le=MOST_STEPS)
    samples: int = Field(ge=1, lt=2**63)
    seconds: float = Field(ge=0)
    best: Annotated[float, Field(ge=0)] | None
    averages: int = Field(ge=0, lt=2**63)
    scaler: dict[str, Annotated[float, Field(ge=0)]]
    moments: bool = True

    def position(self) -> Position:
        """Return the progress; JSON has no infinity, so that ``best`` is null before the first validation."""
        return Position(self.step, self.samples, self.seconds, inf if self.best is None else self.best)


class RunState(NamedTuple):
    """Everything that the processes of a run share.

    Attributes:
        position: the progress.
        model: the network that is trained.
        averaged: the averaged network; None without averaging.
        averages: updates of the averaged network so far.
        moments: Adam's state, under ``PARAMETER.NAME``; float32, or bfloat16 in a packed run. None in a run
            that was packed without it.
        scaler: state of the loss scaler of fp16; empty for other precisions.
    """

    position: Position
    model: DIM
    averaged: DIM | None
    averages: int
    moments: dict[str, Tensor] | None
    scaler: dict[str, float]


def save_state(accelerator: Accelerator, output: Path, state: RunState) -> None:
    """Write ``last/``; after an interruption at any moment, the old state or the new one is whole."""
    last = output / "last"
    with ExitStack() as stack:
        names = [""]
        if accelerator.is_main_process:
            # An earlier process may have been killed while it wrote.
            remove_leftovers(output, [last.name])
            names = [str(stack.enter_context(replace_folder(last)))]
        # All processes write into the folder that the main one made, and it is renamed when all are done.
        new = Path(broadcast_object_list(names)[0])
        write_tensors(new / _random_file(accelerator.process_index), _generators())
        if accelerator.is_main_process:
            write_state(new, state)
        accelerator.wait_for_everyone()


def write_state(folder: Path, state: RunState, *, half: bool = False) -> None:
    """Write the files that the processes share.

    Args:
        half: store the weights as float16.
    """
    checkpoint.save(state.model, folder / "model.safetensors", half=half)
    if state.averaged is not None:
        checkpoint.save(state.averaged, folder / "averaged.safetensors", half=half)
    if state.moments is not None:
        write_tensors(folder / "optimizer.safetensors", state.moments)
    position = asdict(state.position)
    # JSON has no infinity.
    position["best"] = state.position.best if isfinite(state.position.best) else None
    document = {"format": FORMAT, **position, "averages": state.averages, "scaler": state.scaler}
    document |= {} if state.moments is not None else {"moments": False}
    write_text(folder / STATE_FILE, json.dumps(document, indent=1, allow_nan=False))


def read_state(output: Path) -> RunState:
    """Read the newest whole state of a run's folder.

    Raises:
        InputError: no state, one of an earlier version, or a damaged one.
    """
    folder = whole_state(output)
    if folder is None:
        raise InputError(f"cannot resume {output}", got="no last/ in it", fix="leave out --resume")
    document = _document(folder, output)
    averaged = folder / "averaged.safetensors"
    try:
        numbers = _Document.model_validate(document)
        return RunState(
            position=numbers.position(),
            model=_finite(checkpoint.load(folder / "model.safetensors")),
            averaged=_finite(checkpoint.load(averaged)) if averaged.is_file() else None,
            averages=numbers.averages,
            moments=load_file(folder / "optimizer.safetensors") if numbers.moments else None,
            scaler=numbers.scaler,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(output, f"{STATE_FILE}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (DimError, *DAMAGED) as error:
        raise damaged(output, str(error).splitlines()[0]) from error


def damaged(output: Path, why: str) -> InputError:
    """Return the error of a state that cannot be used."""
    return InputError(f"cannot resume {output}", got="a damaged last/", why=why)


def _finite(network: DIM) -> DIM:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weights that are not finite, among them {name}")
    return network


def read_generators(output: Path, process: int) -> dict[str, Tensor]:
    """Return the states of a process's generators; empty if the run had fewer processes.

    Raises:
        InputError: the file is damaged.
    """
    folder = whole_state(output)
    file = None if folder is None else folder / _random_file(process)
    if file is None or not file.is_file():
        return {}
    try:
        states: dict[str, Tensor] = load_file(file)
        _require_generators(states)
    except (*DAMAGED, RuntimeError) as error:
        raise damaged(output, f"{file.name}: {error}") from error
    return states


def _require_generators(states: Mapping[str, Tensor]) -> None:
    """Set trial generators, so that torch checks type, size and content; RuntimeError or TypeError if not."""
    torch.Generator().set_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.Generator("cuda").set_state(states["cuda"])


def restore_generators(states: Mapping[str, Tensor]) -> None:
    """Set torch's generators of this process."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def whole_state(output: Path) -> Path | None:
    """Return the folder of the newest whole state of a run, or None."""
    folder = current_folder(output / "last")
    return folder if folder is not None and (folder / STATE_FILE).is_file() else None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; the file is whole or not there."""
    # Not save_file: it leaves a file that only its owner can read.
    write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))


def _generators() -> dict[str, Tensor]:
    """Return the states of torch's generators: no other global generator is drawn from."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _random_file(process: int) -> str:
    return f"random-{process}.safetensors"


def _document(folder: Path, output: Path) -> dict[str, Any]:
    try:
        document = parse_json((folder / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot resume {output}", got=f"a damaged {STATE_FILE}", why=str(error)) from error
    version = document.get("format", 1) if isinstance(document, dict) else None
    if version == 1:
        raise InputError(
            f"cannot resume {output}",
            got="a state of an earlier version, which holds pickles",
            expected=f"version {FORMAT}: safetensors and JSON",
            why="loading a pickle may run code that is in it",
            fix=f"dim-train convert-run {output} -o NEW, then --resume in NEW",
        )
    if version != FORMAT:
        raise InputError(
            f"cannot resume {output}", got=f"a state of version {version}", expected=f"version {FORMAT}"
        )
    assert isinstance(document, dict)
    return document
