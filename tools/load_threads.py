"""Call one `Matting` from many threads; report resident memory, failures, differences from serial calls.

    python tools/load_threads.py --threads 32 --requests 200
    python tools/load_threads.py --threads 32 --requests 200 --memory-limit 450MB
    python tools/load_threads.py --threads 32 --requests 200 --backend openvino

The sizes of the images are mixed. A single thread sends all of them first, so that the engine has met every
shape; then each thread starts with the largest one, and draws the others. The exit code is 1 if a request
fails, if an alpha differs by a bit from the single thread's, or if the resident memory of the last quarter of
the requests is more than 5 % above that of the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dim.arrays import UInt8
from dim_runtime import Matting
from dim_runtime.images.samples import lemur
from dim_runtime.memory import resident_bytes

ALLOWED_GROWTH = 1.05
"""Largest resident memory of the last quarter, as a multiple of the first's."""
PICTURES = 24
"""Number of different images that the threads send."""

Pair = tuple[UInt8, UInt8]


@dataclass
class Record:
    """Results of all requests, in the order in which they ended."""

    alone: int = 0
    """Resident memory after a single thread has sent all pictures, bytes."""
    resident: list[int] = field(default_factory=list)
    """Resident memory after each request, bytes."""
    digests: set[tuple[int, str]] = field(default_factory=set)
    """Number of the picture and SHA-256 of its alpha; more than one for a picture is a fault."""
    failures: list[str] = field(default_factory=list)

    def quarters(self) -> list[float]:
        """Return the mean resident memory of each quarter of the requests, bytes."""
        return [float(np.mean(part)) for part in np.array_split(self.resident, 4)]

    @property
    def growth(self) -> float:
        """Resident memory of the last quarter as a multiple of the first's."""
        first, *_, last = self.quarters()
        return last / first


def main() -> int:
    """Run the load that the command line describes; return the exit code."""
    arguments = parse()
    # Some of the pieces hold no unknown pixel.
    warnings.simplefilter("ignore")
    pairs = pictures(arguments.smallest, arguments.largest)
    record = Record()
    with Matting(
        backend=arguments.backend, threads=arguments.engine_threads, memory_limit=arguments.memory_limit
    ) as matting:
        expected = {(number, digest(matting, pair)) for number, pair in enumerate(pairs)}
        record.alone = resident_bytes()
        load(matting, pairs, arguments.threads, arguments.requests, record)
    return report(record, len(record.digests - expected), as_json=arguments.json)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="of each thread")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--engine-threads", type=int, help="threads of one operator; default: the engine's")
    parser.add_argument("--memory-limit", help="such as 450MB")
    parser.add_argument("--smallest", type=int, default=32, help="side of an image, px")
    parser.add_argument("--largest", type=int, default=256, help="side of an image, px, at most 440")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    return parser.parse_args()


def pictures(smallest: int, largest: int) -> list[Pair]:
    """Return pieces of the sample photograph of mixed sizes, the largest one first."""
    image, trimap = lemur()
    draw = np.random.default_rng(0)
    sides = [(largest, largest)]
    sides += [tuple(draw.integers(smallest, largest + 1, 2)) for _ in range(PICTURES - 1)]
    made = []
    for height, width in sides:
        y, x = int(draw.integers(0, 441 - height)), int(draw.integers(100, 561 - width))
        part = slice(y, y + height), slice(x, x + width)
        made.append((image[part].copy(), trimap[part].copy()))
    return made


def load(matting: Matting, pairs: Sequence[Pair], threads: int, requests: int, record: Record) -> None:
    """Send the requests of all threads; each thread starts with the first pair, then draws."""

    def client(thread: int) -> None:
        drawn = np.random.default_rng(thread).integers(0, len(pairs), requests)
        drawn[0] = 0
        for number in map(int, drawn):
            try:
                # A server decodes each request into new arrays.
                image, trimap = (array.copy() for array in pairs[number])
                record.digests.add((number, digest(matting, (image, trimap))))
            except Exception as error:
                record.failures.append(repr(error))
            record.resident.append(resident_bytes())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(client, range(threads)))


def digest(matting: Matting, pair: Pair) -> str:
    """Return the SHA-256 of a pair's alpha."""
    return hashlib.sha256(matting(*pair).tobytes()).hexdigest()


def report(record: Record, different: int, *, as_json: bool) -> int:
    """Print the figures; return the exit code."""
    figures = {
        "requests": len(record.resident),
        "failures": record.failures,
        "different": different,
        "alone_mb": round(record.alone / 1e6, 1),
        "quarters_mb": [round(value / 1e6, 1) for value in record.quarters()],
        "largest_mb": round(max(record.resident) / 1e6, 1),
        "growth": round(record.growth, 4),
    }
    if as_json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    return 1 if record.failures or different or record.growth > ALLOWED_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
