"""Measure what docs/performance.md reports: eager PyTorch against this runtime, photograph by photograph.

    python examples/measure_performance.py FP32.onnx INT8.onnx PAIRS -o out/performance

PAIRS is a folder of images/ and trimaps/. Every measurement is a separate file in the output folder, so that
an interrupted run can be resumed; `table.md` is made from the files. Let nothing else run meanwhile.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser
from math import prod
from pathlib import Path

from dim.images.files import read_trimap
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.cli.measure import eager_pytorch
from dim_runtime.images.pairs import find_pairs

DIM_MATTE = "from dim_runtime.cli import main; main()"
SPEED_CONTEXT = "64"
"""Pixels: the recommended speed mode, see docs/performance.md."""


def main() -> None:
    """Read the command line, measure every model on every pair, and write the tables."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("fp32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/performance"))
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    float32 = ["--model", str(given.fp32), "--backend", "openvino"]
    # What int8 leaves in float is computed in bf16: faster, and measured to be no less accurate.
    integer = ["--model", str(given.int8), "--backend", "openvino", "--precision", "bf16"]
    ways = {
        "OpenVINO fp32": float32,
        "OpenVINO bf16": [*float32, "--precision", "bf16"],
        "OpenVINO int8": integer,
        f"OpenVINO int8, context {SPEED_CONTEXT}": [*integer, "--context", SPEED_CONTEXT],
    }
    rows = []
    for pair in find_pairs(given.pairs):
        rows.append(measure_pair(pair.name, pair.image, pair.trimap, ways, given))
        (given.output / "table.md").write_text(table(rows, list(ways)), "utf-8")
    print((given.output / "table.md").read_text("utf-8"))


def measure_pair(name: str, image: Path, trimap: Path, ways: dict[str, list[str]], given) -> dict:
    """Measure eager PyTorch first, then every way, each in its own process."""
    found = {}
    height, width = read_trimap(trimap).shape
    baseline = given.output / f"{name} eager.json"
    if not baseline.exists():
        eager = eager_pytorch(read_metadata(given.fp32), height, width, runs=given.runs)
        baseline.write_text(eager.model_dump_json(), "utf-8")
    for way, options in ways.items():
        report = given.output / f"{name} {way}.json"
        if not report.exists():
            command = [sys.executable, "-c", DIM_MATTE, "bench", str(image), str(trimap)]
            subprocess.run(
                [*command, *options, "--runs", str(given.runs), "--report", str(report)], check=True
            )
        found[way] = json.loads(report.read_text("utf-8"))
    return {
        "name": name,
        "megapixels": height * width / 1e6,
        "eager": json.loads(baseline.read_text("utf-8")),
        "ways": found,
    }


def table(rows: list[dict], ways: list[str]) -> str:
    """Return seconds, ratio to eager PyTorch, share of its memory; the last line is the geometric mean."""
    lines = [
        "| photograph | eager PyTorch | " + " | ".join(ways) + " |",
        "|" + "---|" * (len(ways) + 2),
    ]
    for row in rows:
        eager = row["eager"]
        cells = [f"{eager['p50_s']:.1f} s, {eager['peak_bytes'] / 1e9:.1f} GB"]
        for way in ways:
            found = row["ways"][way]
            ratio, share = eager["p50_s"] / found["p50_s"], found["peak_bytes"] / eager["peak_bytes"]
            cells.append(f"{found['p50_s']:.1f} s, {ratio:.2f}×, {share:.2f} of the memory")
        lines.append(f"| {row['name']}, {row['megapixels']:.1f} MP | " + " | ".join(cells) + " |")
    means = []
    for way in ways:
        ratios = [row["eager"]["p50_s"] / row["ways"][way]["p50_s"] for row in rows]
        shares = [row["ways"][way]["peak_bytes"] / row["eager"]["peak_bytes"] for row in rows]
        means.append(f"{geometric_mean(ratios):.2f}×, {geometric_mean(shares):.2f} of the memory")
    lines.append("| geometric mean | 1 | " + " | ".join(means) + " |")
    return "\n".join(lines) + "\n"


def geometric_mean(values: list[float]) -> float:
    return prod(values) ** (1 / len(values))


if __name__ == "__main__":
    main()
