"""Measure the first call: seconds from the start of a process to the first alpha, and of the second call.

    python tools/first_call.py IMAGE TRIMAP [--runs 4]

Each run is a fresh process on the embedded model: ONNX Runtime, OpenVINO, and OpenVINO with a cache of its
compiled graphs, which the first run fills.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
from dim.images.files import read_image, read_trimap
from dim_runtime import Matting
image, trimap = read_image(Path(sys.argv[1])), read_trimap(Path(sys.argv[2]))
matting = Matting(**json.loads(sys.argv[3]))
matting(image, trimap)
first = time.perf_counter()
matting(image, trimap)
print(first - started, time.perf_counter() - first)
"""


def main() -> None:
    """Read the command line, run the processes, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("trimap", type=Path)
    parser.add_argument("--runs", type=int, default=4)
    given = parser.parse_args()
    print("| | first calls, s | second calls, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        ways = {
            "ONNX Runtime": {},
            "OpenVINO": {"backend": "openvino"},
            "OpenVINO, cache": {"backend": "openvino", "cache": cache},
        }
        for name, options in ways.items():
            command = [sys.executable, "-c", CODE, str(given.image), str(given.trimap), json.dumps(options)]
            seconds = [run(command) for _ in range(given.runs)]
            firsts, further = (
                ", ".join(f"{each:.2f}" for each in calls) for calls in zip(*seconds, strict=True)
            )
            print(f"| {name} | {firsts} | {further} |")


def run(command: list[str]) -> tuple[float, float]:
    """Return the seconds of both calls in a new process; exit with its error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip().rpartition("\n")[2])
    first, second = map(float, done.stdout.split()[-2:])
    return first, second


if __name__ == "__main__":
    main()
