"""A thousand images in one process: does resident memory grow?

Run it by hand for larger images; the test runs it with small ones:

    python tests/runtime/soak.py --images 1000 --largest 440 --way map
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from dim.arrays import UInt8
from dim_runtime import Matting
from dim_runtime.images.samples import lemur
from dim_runtime.memory import resident_bytes


def pairs(images: int, largest: int) -> Iterator[tuple[UInt8, UInt8]]:
    """Pieces of the lemur of many sizes, copied as a reader would make them."""
    image, trimap = lemur()
    rng = np.random.default_rng(0)
    for _ in range(images):
        height, width = (int(side) for side in rng.integers(17, largest + 1, 2))
        y, x = int(rng.integers(0, 441 - height)), int(rng.integers(100, 561 - width))
        yield image[y : y + height, x : x + width].copy(), trimap[y : y + height, x : x + width].copy()


def resident(images: int, largest: int, way: str, threads: int) -> list[int]:
    """Resident memory after each image, bytes."""
    made = pairs(images, largest)
    with Matting(threads=threads) as matting:
        results = matting.map(made) if way == "map" else (matting(*pair) for pair in made)
        return [resident_bytes() for _ in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--largest", type=int, default=440, help="side, px, at most 440")
    parser.add_argument("--way", choices=("call", "map"), default="map")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    found = resident(chosen.images, chosen.largest, chosen.way, chosen.threads)
    first, last = (float(np.mean(part)) for part in (found[:100], found[-100:]))
    print(f"{first:.0f} {last:.0f} {last / first - 1:+.2%}")


if __name__ == "__main__":
    main()
