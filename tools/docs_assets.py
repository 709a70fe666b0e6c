"""Make the pictures and tables of the documents, and report which are out of date.

    python tools/docs_assets.py                      # make what is out of date and needs no other data
    python tools/docs_assets.py --check              # only report; exit code 1 when something is out of date
    python tools/docs_assets.py benchmark --photos PHOTOS    # make these, with your photographs

`docs/assets.json` records the SHA-256 of every input at the time when an asset was made: weights,
photographs, templates, the code of the command without its comments and docstrings. An asset is out of
date when an input has changed since, or its output is missing. Times in tables depend on the machine as
well; let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dim.files import sha256, write_text
from dim_runtime.backends.open import default_model

TOP = Path(__file__).resolve().parents[1]
MANIFEST = TOP / "docs" / "assets.json"
DIGITS = 16
"""Of a SHA-256, in the manifest."""
MODEL = default_model().relative_to(TOP).as_posix()
WEIGHTS = MODEL.removesuffix(".onnx") + ".safetensors"
QUALITY = ("measure_quality", "quality_methods", "quality_pictures", "quality_process", "quality_tables")
PAGE = ("api.js", "camera.js", "index.html", "labels.js", "main.js", "pyramid.js", "screen.js", "style.css")
CONTEXT = (
    "export/dim_export/bench/context.py",
    "tools/context_tables.py",
    "dim/dim/contract/layers.py",
    "runtime/dim_runtime/planning/partition.py",
    "runtime/dim_runtime/planning/planner.py",
)

Manifest = dict[str, dict[str, str]]
"""By asset, then by input."""


class Asset(NamedTuple):
    """Files of the documents that one command makes.

    Attributes:
        name: what the command line calls it.
        outputs: paths within the repository.
        inputs: paths of what it is made from, the command's code included.
        command: words after the interpreter; PHOTOS stands for the folder of photographs.
    """

    name: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    command: tuple[str, ...]

    @property
    def needs_photos(self) -> bool:
        """Whether the command needs photographs that the repository may not carry."""
        return "PHOTOS" in self.command


ASSETS = (
    Asset(
        "readme",
        ("docs/images/readme.jpg",),
        (MODEL, "docs/images/dandelion.jpg", "docs/images/dandelion_trimap.png", "tools/readme_picture.py"),
        ("tools/readme_picture.py",),
    ),
    Asset(
        "page",
        ("docs/images/page.jpg",),
        (MODEL, *(f"runtime/dim_runtime/serve/page/{name}" for name in PAGE), "tools/page_screenshot.py"),
        ("tools/page_screenshot.py", "-o", "docs/images/page.jpg"),
    ),
    Asset(
        "scribbles",
        ("docs/images/scribbles.jpg",),
        (
            MODEL,
            "runtime/dim_runtime/images/samples/lemur.png",
            "runtime/dim_runtime/trimaps/bands.py",
            "runtime/dim_runtime/trimaps/sources.py",
            "runtime/dim_runtime/trimaps/grabcut.py",
            "runtime/dim_runtime/trimaps/strokes.py",
            "tools/scribbles_picture.py",
        ),
        ("tools/scribbles_picture.py",),
    ),
    Asset(
        "benchmark",
        ("docs/models/benchmark.md", "docs/models/benchmark_lemur.jpg"),
        (WEIGHTS, "docs/models/benchmark.md.j2", *(f"examples/{name}.py" for name in QUALITY)),
        ("examples/measure_quality.py", "PHOTOS", "--page", "docs/models/benchmark.md", "--threads", "1"),
    ),
    Asset(
        "context",
        ("docs/performance.md",),
        (MODEL, *CONTEXT),
        ("tools/context_tables.py", "PHOTOS", "--trimaps", "PHOTOS_highres/trimaps"),
    ),
)


def digests(asset: Asset) -> dict[str, str]:
    """Return the shortened SHA-256 of each input that exists."""
    found = {name: TOP / name for name in asset.inputs}
    return {name: digest(path) for name, path in found.items() if path.is_file()}


def digest(path: Path) -> str:
    """Return the shortened SHA-256 of a file; of Python's code without comments, docstrings and layout."""
    if path.suffix != ".py":
        return sha256(path)[:DIGITS]
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:DIGITS]


def changed(asset: Asset, manifest: Manifest) -> list[str]:
    """Return the inputs that differ from the manifest, and the outputs that are missing."""
    recorded, now = manifest.get(asset.name, {}), digests(asset)
    inputs = [name for name in asset.inputs if now.get(name) != recorded.get(name)]
    return inputs + [name for name in asset.outputs if not (TOP / name).exists()]


def read_manifest() -> Manifest:
    """Return the recorded digests; empty without a manifest."""
    found: Manifest = json.loads(MANIFEST.read_text("utf-8")) if MANIFEST.exists() else {}
    return found


def make(asset: Asset, photos: Path | None) -> None:
    """Run the asset's command and record its inputs; exit with the command's code if it fails."""
    words = [word.replace("PHOTOS", str(photos)) for word in asset.command]
    print(f"{asset.name}: python {' '.join(words)}", flush=True)
    before = digests(asset)
    code = subprocess.run([sys.executable, *words], cwd=TOP, check=False).returncode
    if code:
        sys.exit(code)
    write_text(MANIFEST, json.dumps({**read_manifest(), asset.name: before}, indent=2) + "\n")


def report(assets: Iterable[Asset], manifest: Manifest) -> int:
    """Print the state of each asset; return 1 when one is out of date, else 0."""
    late = 0
    for asset in assets:
        reasons = changed(asset, manifest)
        state = f"out of date, changed since: {', '.join(reasons)}" if reasons else "up to date"
        print(f"{asset.name} ({', '.join(asset.outputs)}): {state}")
        late += bool(reasons)
    return 1 if late else 0


def main(arguments: list[str]) -> int:
    """Make or report assets; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(asset.name for asset in ASSETS))
    parser.add_argument("--check", action="store_true", help="report only")
    parser.add_argument("--photos", type=Path, help="folder of images/, trimaps/, alphas/, trimaps_wide/")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - {asset.name for asset in ASSETS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = [asset for asset in ASSETS if not given.names or asset.name in given.names]
    if given.check:
        return report(chosen, read_manifest())
    for asset in chosen:
        if asset.needs_photos and given.photos is None:
            print(f"{asset.name}: needs --photos")
        elif given.names or changed(asset, read_manifest()):
            make(asset, given.photos)
    return report(chosen, read_manifest())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
