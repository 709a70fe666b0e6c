"""The files of a run's folder beside ``last/``: what an earlier run left, and the recipe of this one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dim.documents import parse_json
from dim.errors import InputError
from dim.files import folder_versions, remove_leftovers, write_text
from dim_training.config import TrainConfig

CONFIG = "config.json"
_FILES = (
    CONFIG,
    "config-until-*.json",
    "metrics.csv",
    "metrics.jsonl",
    "best.safetensors",
    "final.safetensors",
    "step-*.safetensors",
    "events",
)
"""Patterns of all that a run writes, except for the folder of its state."""
STATE_FOLDER = "last"
PROVENANCE = ("seed", "steps", "images", "hours")
"""Entries about the run in its weights' provenance; what is made of the weights keeps them."""


def require_new(output: Path) -> None:
    """Raise InputError if the folder holds an earlier run."""
    found = _written(output)
    if found:
        raise InputError(
            f"cannot start a run in {output}",
            got=f"an earlier run: {', '.join(path.name for path in found[:4])}",
            expected="a new folder",
            fix="--resume to continue it, --overwrite to replace it, or another -o",
        )


def clear(output: Path) -> None:
    """Remove all that an earlier run wrote; other files stay."""
    for path in _written(output):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    remove_leftovers(output, [STATE_FOLDER])


def write_config(output: Path, config: TrainConfig, *, step: int, changed: bool) -> None:
    """Write ``config.json``; the settings before a change stay in ``config-until-STEP.json``."""
    path = output / CONFIG
    before = output / f"config-until-{step:07d}.json"
    # A run that was resumed at this step before, and saved nothing, left nothing of its settings.
    if changed and path.is_file() and not before.exists():
        write_text(before, path.read_text("utf-8"))
    write_text(path, config.model_dump_json(indent=2))


def read_config_of(output: Path) -> dict[str, Any] | None:
    """Return the settings of the run in a folder; None if it has no ``config.json``.

    Raises:
        InputError: a ``config.json`` that is damaged or cannot be read.
    """
    try:
        document = parse_json((output / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the run {output}", got=f"a damaged {CONFIG}", why=str(error)
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"cannot read the run {output}", got=f"a damaged {CONFIG}", expected="a JSON object")
    return document


def _written(output: Path) -> list[Path]:
    found = [path for pattern in _FILES for path in output.glob(pattern)]
    return sorted([*found, *folder_versions(output / STATE_FOLDER)])
