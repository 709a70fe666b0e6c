"""The state that a run is resumed from, in ``last/``: written beside the old one, then swapped."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dim.errors import InputError
from dim.files import current_folder, remove_leftovers, replace_folder

_POSITION = "state.json"


@dataclass
class Position:
    """Where a run is.

    Attributes:
        step: optimiser steps done.
        samples: global samples seen by all processes together.
        seconds: time spent, validation included.
        best: lowest mean SAD so far.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    best: float = inf


def save_state(accelerator: Accelerator, output: Path, position: Position) -> None:
    """Write ``last/``: an interruption at any moment leaves the old state or the new one whole."""
    last = output / "last"
    with ExitStack() as stack:
        names = [""]
        if accelerator.is_main_process:
            # An earlier process may have been killed while it wrote.
            remove_leftovers(output, [last.name])
            names = [str(stack.enter_context(replace_folder(last)))]
        # All processes write into the folder that the main one made, and it is renamed when all are done.
        new = broadcast_object_list(names)[0]
        accelerator.save_state(new)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (Path(new) / _POSITION).write_text(json.dumps(asdict(position)), "utf-8")


def load_state(accelerator: Accelerator, output: Path) -> Position:
    """Restore everything from the newest whole state of a folder."""
    folder = whole_state(output)
    if folder is None:
        raise InputError(f"cannot resume {output}", got="no last/ in it", fix="leave out --resume")
    accelerator.load_state(str(folder))
    return Position(**json.loads((folder / _POSITION).read_text("utf-8")))


def whole_state(output: Path) -> Path | None:
    """The newest whole state in the folder of a run."""
    folder = current_folder(output / "last")
    return folder if folder is not None and (folder / _POSITION).is_file() else None
