"""Write the weights of a run, or a checkpoint, into the package, and their verified artefacts beside them.

    python tools/ship_weights.py SOURCE NAME --command TEXT --licence TEXT

SOURCE is the folder of a run, packed or not, whose averaged weights are taken, or a ``.safetensors`` file.
NAME is one of ``dim_runtime.backends.open.SHIPPED_MODELS`` that has weights. The artefact in int8 is written
where NAME-int8 is another of them. The origin of the weights is stored in them:
command and licence as given, the rest from the state of the run or from the file.
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
from dim.network import DIM
from dim_runtime.backends.open import SHIPPED_MODELS, model_path
from dim_training.run_state import read_state

ROOT = Path(__file__).resolve().parents[1]
INT8 = "-int8"
"""Ends the name of an artefact that is made of the weights of another name."""

app = typer.Typer()


@app.command()
def ship(
    source: Path,
    name: str,
    command: Annotated[str, typer.Option(help="The command that trained them, without paths of a machine.")],
    licence: Annotated[str, typer.Option(help="What the licence of the weights is, and where it is stated.")],
) -> None:
    """Write NAME.safetensors (float16), NAME.onnx and perhaps NAME-int8.onnx, and print their sizes."""
    names = [each for each in SHIPPED_MODELS if not each.endswith(INT8)]
    if name not in names:
        raise InputError("cannot ship these weights", got=name, expected=" or ".join(names))
    model, origin = _from_file(source) if source.is_file() else _from_run(source)
    artefact = model_path(name)
    provenance = {**origin, "command": command, "licence": licence}
    # The same file names in an empty folder: they are stored in the artefact. Nothing of the package is
    # replaced before the command has verified the new artefact.
    with scratch_folder(artefact) as folder:
        made = folder / artefact.relative_to(ROOT)
        made.parent.mkdir(parents=True)
        weights = made.with_suffix(".safetensors")
        checkpoint.save(model, weights, provenance=provenance, half=True)
        artefacts = {made: "fp32"}
        if name + INT8 in SHIPPED_MODELS:
            artefacts[made.with_stem(name + INT8)] = "int8"
        for path, precision in artefacts.items():
            files = [str(each.relative_to(folder)) for each in (weights, path)]
            export = [sys.executable, "-m", "dim_export.cli", "onnx", files[0], "-o", files[1]]
            subprocess.run([*export, "--precision", precision], cwd=folder, check=True)
        for path in (weights, *artefacts):
            os.replace(path, artefact.parent / path.name)
            typer.echo(f"{path.relative_to(folder)}: {(artefact.parent / path.name).stat().st_size} bytes")


def _from_file(path: Path) -> tuple[DIM, dict[str, str]]:
    """Return the network of a checkpoint, and where its weights come from."""
    return checkpoint.load(path), dict(checkpoint.read(path).provenance)


def _from_run(folder: Path) -> tuple[DIM, dict[str, str]]:
    """Return the averaged network of a run, or the network itself without averages, and how long it ran."""
    state = read_state(folder)
    position = state.position
    origin = {
        "steps": str(position.step),
        "images": str(position.samples),
        "hours": f"{position.seconds / 3600:.2f}",
    }
    return state.averaged or state.model, origin


if __name__ == "__main__":
    cli_support.run(app)
