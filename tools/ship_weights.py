"""Write the averaged weights of a run into the package, and their verified artefact beside them.

    python tools/ship_weights.py RUN NAME --command TEXT --licence TEXT

RUN is the folder of a run, packed or not. NAME is one of ``dim_runtime.backends.open.SHIPPED_MODELS``. The
origin of the weights is stored in them: command and licence as given, the rest from the state of the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dim import checkpoint, cli_support
from dim.errors import InputError
from dim.files import scratch_folder
from dim_runtime.backends.open import SHIPPED_MODELS, model_path
from dim_training.run_state import Position, read_state

ROOT = Path(__file__).resolve().parents[1]

app = typer.Typer()


@app.command()
def ship(
    run: Path,
    name: str,
    command: Annotated[str, typer.Option(help="The command that trained them, without paths of a machine.")],
    licence: Annotated[str, typer.Option(help="What the licence of the weights is, and where it is stated.")],
) -> None:
    """Write NAME.safetensors (float16) and NAME.onnx, and print their sizes."""
    if name not in SHIPPED_MODELS:
        raise InputError("cannot ship these weights", got=name, expected=" or ".join(SHIPPED_MODELS))
    state = read_state(run)
    artefact = model_path(name)
    provenance = {"command": command, "licence": licence, **_progress(state.position)}
    # The same file names in an empty folder: they are stored in the artefact. Nothing of the package is
    # replaced before the command has verified the new artefact.
    with scratch_folder(artefact) as folder:
        made = folder / artefact.relative_to(ROOT)
        made.parent.mkdir(parents=True)
        weights = made.with_suffix(".safetensors")
        checkpoint.save(state.averaged or state.model, weights, provenance=provenance, half=True)
        files = [str(path.relative_to(folder)) for path in (weights, made)]
        export = [sys.executable, "-m", "dim_export.cli", "onnx", files[0], "-o", files[1]]
        subprocess.run(export, cwd=folder, check=True)
        for path in (weights, made):
            os.replace(path, artefact.parent / path.name)
            typer.echo(f"{path.relative_to(folder)}: {(artefact.parent / path.name).stat().st_size} bytes")


def _progress(position: Position) -> dict[str, str]:
    return {
        "steps": str(position.step),
        "images": str(position.samples),
        "hours": f"{position.seconds / 3600:.2f}",
    }


if __name__ == "__main__":
    cli_support.run(app)
