"""Training at full width on a GPU: a short run of ``dim-train fit``, images per second."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from timing import options

from dim.files import write_text

FIT = "from dim_training.cli import main; main()"
FULL = {"width": 1.0, "size": 320, "batch": 32, "steps": 60, "workers": 14}
TINY = {"width": 0.0625, "size": 64, "batch": 2, "steps": 3, "workers": 0}


def main() -> None:
    """Write the JSON of this step; the run itself is dropped."""
    given = options("Training at full width on a GPU.")
    size = TINY if given.dry else FULL
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(text(size), encoding="utf-8")
        command = [sys.executable, "-c", FIT, "fit", str(recipe), "-o", str(run), "--device", given.device]
        started = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = perf_counter() - started
        print(done.stdout[-4000:], done.stderr[-4000:])
        rows = read(run / "metrics.csv")
    images = size["batch"] * size["steps"]
    report: dict[str, Any] = size | {
        "seconds": seconds, "images_per_s": images / seconds, "rows": rows,
        "exit_code": done.returncode,
    }  # fmt: skip
    write_text(given.output, json.dumps(report, indent=2) + "\n")
    sys.exit(done.returncode)


def text(size: dict[str, Any]) -> str:
    """Return a recipe of stage 1 with drawn foregrounds."""
    return (
        f"steps = {size['steps']}\nbatch = {size['batch']}\nlog_every = {max(1, size['steps'] // 6)}\n"
        f'precision = "bf16"\n[network]\nstage = 1\nwidth = {size["width"]}\n'
        f'[data]\nkind = "procedural"\ncompose = "device"\nsize = {size["size"]}\n'
        f"crop_sides = [{size['size']}]\nworkers = {size['workers']}\n"
    )


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv; none if the run wrote none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
