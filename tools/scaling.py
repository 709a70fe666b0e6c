"""Measure how time and memory grow with the image, and how many photographs a batch mattes in a minute.

    python tools/scaling.py [IMAGE TRIMAP] [--megapixels 1 4 12 48 100] [--threads 1 2] [--batch 100]

The pair, by default the photograph of this package, is resized to each size; `dim-matte bench` measures the
embedded model on it in a separate process. Then `dim-matte batch` mattes copies of the pair at its
size, alone and with `--ray` on a cluster of this machine. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from dim.images.files import read_image, read_trimap, write_image
from dim_runtime.images.samples import sample_paths

DIM_MATTE = [sys.executable, "-c", "from dim_runtime.cli import main; main()"]


def main() -> None:
    """Read the command line, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path, nargs="?", default=sample_paths()[0])
    parser.add_argument("trimap", type=Path, nargs="?", default=sample_paths()[1])
    parser.add_argument("--megapixels", type=float, nargs="*", default=[1, 4, 12, 48, 100])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for row in scaling(given.image, given.trimap, given.megapixels, given.threads, Path(folder)):
            print(row, flush=True)
    if given.batch:
        with tempfile.TemporaryDirectory() as folder:
            for row in batches(given.image, given.trimap, given.batch, Path(folder)):
                print(row, flush=True)


def scaling(image: Path, trimap: Path, sizes: list[float], threads: list[int], folder: Path) -> Iterator[str]:
    """Yield the rows of a table: seconds and peak memory at each size and number of threads."""
    yield "| megapixels | cost | " + " | ".join(f"threads: {count}" for count in threads) + " |"
    yield "|---" * (2 + len(threads)) + "|"
    for size in sizes:
        pair = resized(image, trimap, size, folder)
        bench = ["bench", *map(str, pair), "--runs", "1", "--json"]
        found = [run([*bench, "--threads", str(count)]) for count in threads]
        cells = [f"{each['seconds'][0]:.2f} s, {each['peak_bytes'] / 1e9:.2f} GB" for each in found]
        yield f"| {size:g} | {found[0]['cost']:.2f} | {' | '.join(cells)} |"


def resized(image: Path, trimap: Path, megapixels: float, folder: Path) -> tuple[Path, Path]:
    """Write the pair at another size, in files without compression."""
    pixels, levels = read_image(image), read_trimap(trimap)
    factor = math.sqrt(megapixels * 1e6 / levels.size)
    size = round(levels.shape[1] * factor), round(levels.shape[0] * factor)
    paths = folder / "image.tif", folder / "trimap.tif"
    smooth = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    write_image(paths[0], cv2.resize(pixels, size, interpolation=smooth))
    write_image(paths[1], cv2.resize(levels, size, interpolation=cv2.INTER_NEAREST))
    return paths


def batches(image: Path, trimap: Path, count: int, folder: Path) -> Iterator[str]:
    """Yield the rows of a table: photographs in a minute, start included, alone and on a Ray cluster."""
    yield f"\n| {count} photographs | seconds | a minute |\n|---|---|---|"
    for name, source in (("images", image), ("trimaps", trimap)):
        (folder / name).mkdir()
        content = source.read_bytes()
        for number in range(count):
            (folder / name / f"{number:04}{source.suffix}").write_bytes(content)
    for way, options in {"one process": [], "local Ray cluster": ["--ray"]}.items():
        started = time.perf_counter()
        pairs = [str(folder / "images"), str(folder / "trimaps")]
        run(["batch", *pairs, "-o", str(folder / way), *options, "--json"])
        seconds = time.perf_counter() - started
        yield f"| {way} | {seconds:.1f} | {60 * count / seconds:.0f} |"


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the JSON that a command of dim-matte prints; exit with its error if it fails."""
    done = subprocess.run([*DIM_MATTE, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
