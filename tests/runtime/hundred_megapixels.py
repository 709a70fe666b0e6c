"""100 megapixels below 2 GB, from the command line, with the embedded model. Takes minutes: not in the suite.

    python tests/runtime/hundred_megapixels.py [SIDE] [alpha|cutout|composite]

Makes a pair of deflate-compressed TIFF files (15 % unknown) in a temporary folder, runs ``dim-matte run``
with ``--memory-limit 2GB`` in a separate process, and prints that process's output and its peak.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile

LIMIT = 2 * 10**9
RUN = """
import sys
from dim_runtime.cli import main
from dim_runtime.memory import peak_resident_bytes
try:
    main()
finally:
    print(peak_resident_bytes(), file=sys.stderr)
"""


def make_pair(folder: Path, side: int) -> tuple[Path, Path]:
    """Return a ring of unknown pixels around foreground, over stripes."""
    trimap = np.zeros((side, side), np.uint8)
    middle, axes = (side // 2, side // 2), (side * 29 // 80, side * 22 // 60)
    cv2.ellipse(trimap, middle, axes, 0, 0, 360, 255, -1)
    cv2.ellipse(trimap, middle, axes, 0, 0, 360, 128, side * 52 // 800)
    image = np.full((side, side, 3), 90, np.uint8)
    image[::7, :, 1] = 200
    image[..., 0] = np.arange(side)[None] % 256
    print(f"{image.size // 3 / 1e6:.0f} megapixels, {(trimap == 128).mean():.1%} unknown")
    paths = folder / "image.tif", folder / "trimap.tif"
    tifffile.imwrite(paths[0], image, photometric="rgb", compression="zlib", rowsperstrip=64)
    tifffile.imwrite(paths[1], trimap, compression="zlib", rowsperstrip=64)
    return paths


def main(side: int, out: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        image, trimap = make_pair(Path(folder), side)
        result = Path(folder) / "result.tif"
        options = ["-o", result, "--out", out, "--memory-limit", str(LIMIT), "--no-progress"]
        command = [sys.executable, "-c", RUN, "run", image, trimap, *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        print(done.stdout + done.stderr)
        if done.returncode:
            return done.returncode
        peak = int(done.stderr.split()[-1])
        print(f"peak {peak / 1e6:.0f} MB; {result.stat().st_size / 1e6:.0f} MB written")
        return int(peak > LIMIT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", type=int, nargs="?", default=10_000, help="of the square image, pixels")
    parser.add_argument("out", nargs="?", default="alpha", choices=["alpha", "cutout", "composite"])
    given = parser.parse_args()
    sys.exit(main(given.side, given.out))
