"""Measure what docs/performance.md reports: this runtime beside other ways, photograph by photograph.

    python examples/measure_performance.py FP32.onnx INT8.onnx PAIRS -o out/performance [--others GT05]

PAIRS is a folder of images/ and trimaps/. Each measurement runs in its own process and becomes a file in the
output folder, so that an interrupted run can be resumed; `table.md` is made from the files. `--others` names
the photographs on which other ways run too: torch.compile, and those of `other_methods.py`. Let nothing else
run meanwhile. ViTMatte needs `pip install transformers`; `--python` names an interpreter that has it.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from math import prod
from pathlib import Path

from pydantic import BaseModel

from dim.files import sha256, write_text
from dim.images.files import read_trimap
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.cli.measure import eager_command, eager_pytorch
from dim_runtime.images.pairs import Pair, find_pairs

DIM_MATTE = "from dim_runtime.cli import main; main()"
SPEED_CONTEXT = "64"
"""Pixels: the recommended speed mode, see docs/performance.md."""
EAGER = "eager PyTorch, whole image"
COMPILED = "torch.compile, whole image"
OTHERS = {
    "plain ONNX in ONNX Runtime, whole image": "onnx",
    "closed form (PyMatting)": "closed-form",
    "KNN (PyMatting)": "knn",
    "rembg's alpha matting": "rembg",
    "ViTMatte-S (transformers)": "vitmatte",
}
FULL = 8e9
"""Bytes of the memory that the table's last column fills."""


class Reading(BaseModel):
    """What a process measured; `failed` has the last line of one that ended with an error."""

    seconds: list[float] = []
    peak_bytes: int = 0
    failed: str | None = None


class Photograph(BaseModel):
    """A pair, its size in pixels, and a reading for each way that was measured."""

    name: str
    pixels: int
    readings: dict[str, Reading] = {}


def main() -> None:
    """Read the command line, measure every way on every pair, and write the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("fp32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/performance"))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--others", nargs="*", default=[], help="photographs for the ways of others")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has transformers")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    require_same(given)
    found = []
    for pair in find_pairs(given.pairs):
        found.append(measure_pair(pair, given))
        write_text(given.output / "table.md", table(found))
    print((given.output / "table.md").read_text("utf-8"))


def require_same(given: Namespace) -> None:
    """Exit if the folder holds measurements of other files or of other numbers of runs."""
    about = {"fp32": sha256(given.fp32), "int8": sha256(given.int8), "runs": given.runs}
    file = given.output / "about.json"
    if not file.exists():
        write_text(file, json.dumps(about))
    elif json.loads(file.read_text("utf-8")) != about:
        sys.exit(f"error: {given.output} holds measurements of other files or --runs; choose another -o")


def measure_pair(pair: Pair, given: Namespace) -> Photograph:
    """Measure every way on a pair, or read what an earlier run measured."""
    height, width = read_trimap(pair.trimap).shape
    commands = {way: dim_matte(pair, options, given.runs) for way, options in our_ways(given).items()}
    if pair.name in given.others:
        commands |= other_ways(pair, height, width, given)
    photograph = Photograph(name=pair.name, pixels=height * width)
    file = given.output / f"{pair.name} {EAGER}.json"
    if not file.exists():
        eager = eager_pytorch(read_metadata(given.fp32), height, width, runs=given.runs)
        write_text(file, eager.model_dump_json())
    photograph.readings[EAGER] = Reading.model_validate_json(file.read_text("utf-8"))
    for way, command in commands.items():
        file = given.output / f"{pair.name} {way}.json"
        if not file.exists():
            write_text(file, reading(command).model_dump_json())
        photograph.readings[way] = Reading.model_validate_json(file.read_text("utf-8"))
    return photograph


def our_ways(given: Namespace) -> dict[str, list[str]]:
    """Return the options of `dim-matte bench` for each way of this toolkit."""
    float32 = ["--model", str(given.fp32)]
    # What int8 leaves in float is computed in bf16: faster, and measured to be no less accurate.
    integer = ["--model", str(given.int8), "--backend", "openvino", "--precision", "bf16"]
    return {
        "ONNX Runtime fp32": [*float32, "--backend", "onnxruntime"],
        "OpenVINO fp32": [*float32, "--backend", "openvino"],
        "OpenVINO bf16": [*float32, "--backend", "openvino", "--precision", "bf16"],
        "OpenVINO int8": integer,
        f"OpenVINO int8, context {SPEED_CONTEXT}": [*integer, "--context", SPEED_CONTEXT],
    }


def dim_matte(pair: Pair, options: list[str], runs: int) -> list[str]:
    files = [str(pair.image), str(pair.trimap)]
    return [sys.executable, "-c", DIM_MATTE, "bench", *files, *options, "--runs", str(runs), "--json"]


def other_ways(pair: Pair, height: int, width: int, given: Namespace) -> dict[str, list[str]]:
    """Return the commands that measure the ways of others."""
    eager = eager_command(read_metadata(given.fp32).network, height, width, runs=given.runs)
    script = [given.python, str(Path(__file__).with_name("other_methods.py"))]
    files = [str(pair.image), str(pair.trimap), "--model", str(given.fp32), "--runs", str(given.runs)]
    return {
        COMPILED: [*eager, "--compile"],
        **{way: [*script, method, *files] for way, method in OTHERS.items()},
    }


def reading(command: list[str]) -> Reading:
    """Run a command that prints one JSON document; a failure is a reading too."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        return Reading(failed=last[:200])
    # Libraries print warnings before it.
    return Reading.model_validate(json.loads(done.stdout[done.stdout.index("{") :]))


def table(photographs: list[Photograph]) -> str:
    """Return a row for each way: seconds, speed and memory relative to eager PyTorch, and their means."""
    ways = list(dict.fromkeys(way for photograph in photographs for way in photograph.readings))
    heads = [f"{photograph.name}, {photograph.pixels / 1e6:.1f} MP" for photograph in photographs]
    lines = [
        "| | " + " | ".join([*heads, "geometric mean", "pixels in 8 GB"]) + " |",
        "|" + "---|" * (len(heads) + 3),
    ]
    for way in ways:
        cells = [cell(photograph, way) for photograph in photographs]
        lines.append(
            f"| {way} | " + " | ".join([*cells, mean(photographs, way), fits(photographs, way)]) + " |"
        )
    return "\n".join(lines) + "\n"


def cell(photograph: Photograph, way: str) -> str:
    found, eager = photograph.readings.get(way), photograph.readings[EAGER]
    if found is None:
        return ""
    if found.failed is not None:
        return f"failed: {found.failed}"
    seconds = f"{median(found):.1f} s"
    if way == EAGER:
        return f"{seconds}, {found.peak_bytes / 1e9:.1f} GB"
    return f"{seconds}, {median(eager) / median(found):.2f} ×, {found.peak_bytes / eager.peak_bytes:.2f}"


def mean(photographs: list[Photograph], way: str) -> str:
    """Return the geometric means of speed and memory over the photographs on which a way ran."""
    ran = [photograph.readings for photograph in photographs if ran_on(photograph, way)]
    if not ran:
        return ""
    speeds = [median(readings[EAGER]) / median(readings[way]) for readings in ran]
    shares = [readings[way].peak_bytes / readings[EAGER].peak_bytes for readings in ran]
    return f"{geometric_mean(speeds):.2f} ×, {geometric_mean(shares):.2f}"


def fits(photographs: list[Photograph], way: str) -> str:
    """Return the megapixels of whole images that fill 8 GB, from the bytes per pixel that were measured."""
    ran = [photograph for photograph in photographs if ran_on(photograph, way)]
    if not ran or (way not in OTHERS and way not in (EAGER, COMPILED)):
        return "" if not ran else "any"
    per_pixel = [photograph.readings[way].peak_bytes / photograph.pixels for photograph in ran]
    return f"{FULL / geometric_mean(per_pixel) / 1e6:.0f} MP"


def ran_on(photograph: Photograph, way: str) -> bool:
    return way in photograph.readings and photograph.readings[way].failed is None


def median(found: Reading) -> float:
    return sorted(found.seconds)[len(found.seconds) // 2]


def geometric_mean(values: list[float]) -> float:
    return prod(values) ** (1 / len(values))


if __name__ == "__main__":
    main()
