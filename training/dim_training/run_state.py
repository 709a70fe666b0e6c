"""The state that a run is resumed from, in ``last/``: written beside the old one, then swapped."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from accelerate import Accelerator

from dim.errors import InputError

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
    new, last, old = (output / name for name in (".last.new", "last", ".last.old"))
    if accelerator.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(new))
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    # Last of all: a folder with this file is complete.
    (new / _POSITION).write_text(json.dumps(asdict(position)), "utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        os.replace(last, old)
    os.replace(new, last)
    shutil.rmtree(old, ignore_errors=True)


def load_state(accelerator: Accelerator, output: Path) -> Position:
    """Restore everything from the newest whole state of a folder."""
    folder = whole_state(output)
    if folder is None:
        raise InputError(f"cannot resume {output}", got="no last/ in it", fix="leave out --resume")
    accelerator.load_state(str(folder))
    return Position(**json.loads((folder / _POSITION).read_text("utf-8")))


def whole_state(output: Path) -> Path | None:
    """The newest whole state in the folder of a run."""
    candidates = (output / "last", output / ".last.old")
    return next((folder for folder in candidates if (folder / _POSITION).is_file()), None)
