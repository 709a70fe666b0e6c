"""Measure what docs/models/benchmark.md reports: quality, time and memory, ours beside the classical methods.

    python examples/measure_quality.py PHOTOS -o out/quality --page docs/models/benchmark.md

PHOTOS is a folder of images/, trimaps/ and alphas/; with trimaps_wide/ these are scored as well. Every
method sees every photograph in its own process, and writes a separate file to the output folder, so that an
interrupted run can be resumed. What is no longer true (another checkpoint, another photograph, another
version) is measured again. The page is the template benchmark.md.j2, where its prose is written,
filled with the tables. Photographs may be closed data: pictures of them go into the output folder only. The
page's picture is the lemur that comes with the package. After a change of the code, which no file remembers,
take an empty output folder. Let nothing else run meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import jinja2
from quality_methods import CLOSED_FORM, KNN, OURS, Method, all_methods, installed
from quality_pictures import write_sheet
from quality_process import Result, Task, result_of
from quality_tables import Results, costs, excesses, photographs, scores, verdict

from dim.errors import DimError, InputError
from dim.files import require_writable, sha256, write_text
from dim.images import read_alpha
from dim.trimap import apply_known
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model, model_path
from dim_runtime.images.pairs import Pair, read_sample
from dim_runtime.images.samples import lemur, sample_paths
from dim_training.scoring.photographs import readable_entries, require_readable, survey

TEMPLATE = Path(__file__).parents[1] / "docs" / "models" / "benchmark.md.j2"
SHIPPED = {"fp32": "dim-clean", "int8": "dim-clean-int8"}
"""Names of the artefacts that come with the package, by their precision."""
DIM_EXPORT = "from dim_export.cli import main; main()"
LEMUR = "lemur"
DIGITS = 12
"""Of a checkpoint's SHA-256, in names and on the page."""
HARDEST = 4
"""Photographs that the page names: those of the largest excess over closed form."""

Named = TypeVar("Named", Method, Pair)
Files = tuple[str, Path, Path, Path | None]
"""Name, image, trimap, and the true alpha where it is known; what a :class:`Pair` is."""


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "photos", type=Path, help="folder of images/, trimaps/, alphas/, perhaps trimaps_wide/"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out/quality"))
    parser.add_argument("--page", type=Path, help="default: benchmark.md in the output folder")
    parser.add_argument("--template", type=Path, default=TEMPLATE)
    parser.add_argument("--checkpoint", type=Path, default=default_model().with_suffix(".safetensors"))
    parser.add_argument("--fp32", type=Path, help="artefact of the checkpoint; exported by default")
    parser.add_argument("--int8", type=Path, help="the same in int8; exported by default")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="photographs; all by default")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="as the page calls them; all by default")
    parser.add_argument("--runs", type=int, default=1, help="calls that are timed, after the first one")
    parser.add_argument("--threads", type=int, help="of every method; its own choice by default")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    try:
        run(given)
    except (DimError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(given: Namespace) -> None:
    """Look at all input first; measure; write pictures and page."""
    page, template = given.page or given.output / "benchmark.md", given.template.read_text("utf-8")
    require_writable(page)
    narrow = chosen(readable_entries(given.photos), given.only)
    wide = with_wide_trimaps(given.photos, narrow)
    files = artefacts(given)
    methods = chosen(all_methods(given.checkpoint, files["fp32"], files["int8"]), given.methods)
    for precision, path in files.items():
        if any(method.artefact == path for method in methods):
            require_artefact(path, precision, given)
    found = measured(methods, narrow, "narrow", given, runs=given.runs)
    found_wide = measured(methods, wide, "wide", given, runs=0)
    picture = None
    if {OURS, CLOSED_FORM} <= found.keys():
        picture = page.with_name(f"{page.stem}_{LEMUR}.jpg")
        draw_lemur(methods, picture, given)
        for entry in narrow:
            draw(entry, given.output)
    write_text(page, filled(template, given, found, found_wide, picture))
    print(page)


def chosen(items: Sequence[Named], names: Sequence[str] | None) -> list[Named]:
    """Return the named items, in the items' order; InputError for an unknown name."""
    unknown = sorted(set(names or ()) - {item.name for item in items})
    if unknown:
        expected = ", ".join(item.name for item in items)
        raise InputError("cannot measure this", got=", ".join(unknown), expected=expected)
    return [item for item in items if names is None or item.name in names]


def with_wide_trimaps(photos: Path, entries: Sequence[Pair]) -> list[Pair]:
    """Return the same photographs with trimaps_wide/NAME.png; none if that folder does not exist."""
    folder = photos / "trimaps_wide"
    if not folder.is_dir():
        return []
    found = [entry._replace(trimap=folder / f"{entry.name}.png") for entry in entries]
    require_readable(photos, survey(found).problems)
    return found


def artefacts(given: Namespace) -> dict[str, Path]:
    """Return the file of each precision: given, shipped, or to be made in the output folder."""
    digest = sha256(given.checkpoint)
    made = {name: given.output / "models" / f"{digest[:DIGITS]}-{name}.onnx" for name in SHIPPED}
    for precision, model in SHIPPED.items():
        if read_metadata(model_path(model)).checkpoint_sha256 == digest:
            made[precision] = model_path(model)
    return {name: getattr(given, name) or path for name, path in made.items()}


def require_artefact(path: Path, precision: str, given: Namespace) -> None:
    """Export the precisions that were not given; InputError for other weights or another precision."""
    if not path.exists() and getattr(given, precision) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["onnx", str(given.checkpoint), "-o", str(path), "--precision", precision]
        if subprocess.run([sys.executable, "-c", DIM_EXPORT, *command], check=False).returncode:
            sys.exit(f"failed: export of {given.checkpoint} in {precision}")
    found, digest = read_metadata(path), sha256(given.checkpoint)
    if (found.precision, found.checkpoint_sha256) != (precision, digest):
        raise InputError(
            f"cannot measure {path} beside {given.checkpoint}",
            got=f"{found.precision} of the checkpoint {found.checkpoint_sha256[:DIGITS]}",
            expected=f"{precision} of {digest[:DIGITS]}",
            fix="leave it out: it is exported then",
        )


def measured(
    methods: Iterable[Method], entries: Sequence[Files], trimaps: str, given: Namespace, *, runs: int
) -> dict[str, dict[str, Result]]:
    """Run every method on every photograph."""
    found: dict[str, dict[str, Result]] = {}
    for method in methods if entries else ():
        found[method.name] = {}
        for name, image, trimap, truth in entries:
            task = Task(
                name=name, method=method, image=image, trimap=trimap, truth=truth,
                runs=runs, threads=given.threads, output=given.output / trimaps / method.name,
            )  # fmt: skip
            result = found[method.name][name] = result_of(task)
            sad = f"SAD {result.metrics.sad:.2f}, " if result.metrics else ""
            print(f"{name}, {trimaps}, {method.name}: {sad}{result.p50_s:.2f} s", flush=True)
    return found


def draw(entry: Pair, output: Path) -> None:
    """Show one photograph: the true alpha, ours, closed form's, and the errors of ours."""
    image, trimap, truth, _ = read_sample(entry)
    panels = {"image": image, "trimap": trimap, "truth": apply_known(truth, trimap)}
    for title, method in (("ours", OURS), (CLOSED_FORM, CLOSED_FORM)):
        panels[title] = read_alpha(output / "narrow" / method / f"{entry.name}.png")
    write_sheet(output / "pictures" / f"{entry.name}.jpg", panels, ("ours", "truth"), width=480)


def draw_lemur(methods: Iterable[Method], picture: Path, given: Namespace) -> None:
    """Draw the shipped photograph, whose true alpha is not known: ours beside the classical methods."""
    shown = [method for method in methods if method.name in (OURS, CLOSED_FORM, KNN)]
    measured(shown, [(LEMUR, *sample_paths(), None)], "sample", given, runs=0)
    image, trimap = lemur()
    panels = {"image": image, "trimap": trimap}
    for method in shown:
        title = "ours" if method.name == OURS else method.name
        panels[title] = read_alpha(given.output / "sample" / method.name / f"{LEMUR}.png")
    write_sheet(picture, panels, ("ours", CLOSED_FORM), width=320)


def filled(template: str, given: Namespace, narrow: Results, wide: Results, picture: Path | None) -> str:
    """Return the page: the template with the tables; without the picture if closed form was not compared."""
    strict = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    return strict.from_string(template).render(
        names=list(next(iter(narrow.values()))),
        checkpoint=given.checkpoint.name,
        sha256=sha256(given.checkpoint)[:DIGITS],
        scores=scores(narrow, wide),
        wide=bool(wide),
        costs=costs(narrow),
        photographs=photographs(narrow),
        verdict=verdict(narrow) if picture else None,
        hardest=list(excesses(narrow))[:HARDEST] if picture else [],
        picture=picture and picture.name,
        versions=installed(),
        python=sys.version.split()[0],
        cores=os.cpu_count(),
        threads=given.threads,
        runs=given.runs,
    )


if __name__ == "__main__":
    main()
