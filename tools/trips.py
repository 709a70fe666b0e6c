"""Count what a reader must open to follow one trip through the code: files, functions and jumps.

Each trip runs for real, in its own process, on a tiny network. A profiler records every function of our
packages that is called; what runs while a module is imported does not count::

    python tools/trips.py                 # all trips as a table
    python tools/trips.py image --files   # one trip, with the files it enters
    python tools/trips.py --json

Columns: *files* and *functions* entered, and *jumps*, the distinct pairs of a calling and a called file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGES = ("dim", "dim_runtime", "dim_export", "dim_training")
RECIPE = """
steps = 1
batch = 1
checkpoint_every = 1
log_every = 1

[network]
stage = 1
width = 0.0625

[data]
kind = "procedural"
crop_sides = [32]
size = 32
workers = 0
"""


class Footprints:
    """A profiler that records the functions of our packages, in every thread.

    Attributes:
        functions: code objects that were entered.
        jumps: (calling file, called file), of two different files of ours.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self.functions: set[CodeType] = set()
        self.jumps: set[tuple[str, str]] = set()

    @property
    def files(self) -> list[str]:
        """The files that were entered, sorted."""
        return sorted({code.co_filename for code in self.functions})

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and self._is_ours(code) and not _importing(frame):
            if not code.co_name.startswith("<"):  # comprehensions and lambdas are part of their function
                self.functions.add(code)
            caller = self._caller(frame)
            if caller is not None and caller != code.co_filename:
                self.jumps.add((caller, code.co_filename))

    def _caller(self, frame: FrameType) -> str | None:
        """Return the nearest file of ours up the stack; libraries in between are skipped."""
        before = frame.f_back
        while before is not None and not self._is_ours(before.f_code):
            before = before.f_back
        return None if before is None else before.f_code.co_filename

    def _is_ours(self, code: CodeType) -> bool:
        return code.co_filename.startswith(self._folders)


def _importing(frame: FrameType | None) -> bool:
    """Return whether Python's import system is on the stack: the function runs during an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def image(folder: Path) -> Callable[[], object]:
    """Run image → alpha: ``Matting()(image, trimap)``, one window."""
    import numpy as np

    from dim_runtime import Matting

    picture, trimap = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    trimap[:, 32:64], trimap[:, 64:] = 128, 255
    return lambda: Matting()(picture, trimap)


def onnx(folder: Path) -> Callable[[], object]:
    """Run checkpoint → ONNX: ``dim-export onnx`` in fp32, without verification."""
    return _command("dim_export.cli", *_export(folder), "--no-verify")


def verified(folder: Path) -> Callable[[], object]:
    """Run checkpoint → verified ONNX: ``dim-export onnx`` in fp32."""
    return _command("dim_export.cli", *_export(folder))


def train(folder: Path) -> Callable[[], object]:
    """Run recipe → training step: ``dim-train fit``, stage 1, drawn foregrounds, one step."""
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return _command("dim_training.cli", "fit", str(recipe), "-o", str(folder / "run"), "--device", "cpu")


TRIPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "image": image,
    "onnx": onnx,
    "verified": verified,
    "train": train,
}


def _export(folder: Path) -> list[str]:
    return ["onnx", str(_checkpoint(folder)), "-o", str(folder / "model.onnx")]


def _checkpoint(folder: Path) -> Path:
    """Write a checkpoint of a tiny network: stage 1, 1/16 of the published width, random weights."""
    import torch

    from dim import checkpoint
    from dim.contract import NetworkConfig
    from dim.network import DIM

    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    checkpoint.save(DIM(NetworkConfig(stage=1, width=1 / 16)), path)
    return path


def _command(module: str, *arguments: str) -> Callable[[], object]:
    """Return a call of a command line's ``main`` that raises RuntimeError unless the command succeeds."""
    from importlib import import_module

    main = import_module(module).main
    sys.argv = [module, *arguments]

    def run() -> None:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{module} ended with exit code {end.code}") from None

    return run


def footprints(name: str) -> Footprints:
    """Run one trip in this process and record it."""
    from importlib.util import find_spec

    specs = [find_spec(package) for package in PACKAGES]
    recorder = Footprints([str(Path(str(spec.origin)).parent) + "/" for spec in specs if spec is not None])
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trip = TRIPS[name](Path(folder))
        with recorder.recording():
            trip()
    return recorder


def counts(name: str) -> dict[str, Any]:
    """Count files, functions and jumps of one trip, and the names of the files."""
    found = footprints(name)
    return {
        "files": len(found.files),
        "functions": len(found.functions),
        "jumps": len(found.jumps),
        "entered": [_short(file) for file in found.files],
    }


def _short(file: str) -> str:
    """Return a file's path, its package first."""
    parts = Path(file).parts
    start = max(place for place, part in enumerate(parts) if part in PACKAGES)
    while start and parts[start - 1] in PACKAGES and parts[start - 1] != parts[start]:
        start -= 1
    return "/".join(parts[start:])


def measured(name: str) -> dict[str, Any]:
    """Run :func:`counts` in a separate process, so that one trip leaves nothing to another."""
    result = subprocess.run(
        [sys.executable, __file__, name, "--json", "--here"], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"the trip {name} failed:\n{result.stderr}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found[name]


def main() -> None:
    """Print the trips that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trips", nargs="*", metavar="TRIP", help=f"{', '.join(TRIPS)}; default: all")
    parser.add_argument("--files", action="store_true", help="also list the files that a trip enters")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.trips) - set(TRIPS)
    if unknown:
        parser.error(f"unknown trip {', '.join(sorted(unknown))}; choose from {', '.join(TRIPS)}")
    found = {name: (counts if given.here else measured)(name) for name in given.trips or TRIPS}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print("| trip | files | functions | jumps |\n|---|---|---|---|")
    for name, trip in found.items():
        title = str(TRIPS[name].__doc__).rstrip(".")
        print(f"| {title} | {trip['files']} | {trip['functions']} | {trip['jumps']} |")
    if given.files:
        for name, trip in found.items():
            print(f"\n{name}:", *trip["entered"], sep="\n  ")


if __name__ == "__main__":
    main()
