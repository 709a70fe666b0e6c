"""Score a model and classical methods on composed scenes, by kind of edge.

    dim-train render --held-out --seeds 900000:900100 -o HELD_OUT
    dim-train render --held-out --seeds 900100:900110 -o HELD_OUT --subject net
    dim-train render --held-out --seeds 900000:900040 --backgrounds -o BACKGROUNDS
    dim-train compose HELD_OUT BACKGROUNDS -o SCENES --band
    python tools/edge_scores.py SCENES --index HELD_OUT

Prints two tables, for narrow and for wide trimaps: mean SAD over unknown pixels, in thousands. A scene counts
for the kind of its subject, and for defocus and motion as well if its camera was out of focus or its subject
moved. Scenes without known foreground or background are left out: classical methods need both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatting import estimate_alpha_cf, estimate_alpha_knn, estimate_alpha_lbdm

import dim.trimap
from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.errors import InputError
from dim.files import sha256, write_text
from dim.metrics import sad
from dim.trimap import apply_known
from dim_runtime import Matting
from dim_runtime.backends.open import model_path
from dim_runtime.images.pairs import Pair, find_pairs, read_sample
from dim_training.data.render.data_set import Entry, read_index
from jpeg_scores import Method, classical

KINDS: dict[str, tuple[str, ...]] = {
    "hair": ("person", "single_hairs"),
    "fur, feathers": ("animal", "plush", "feathers"),
    "yarn, rope, knitwear": ("tassel", "skein", "frayed_rope", "fibres", "knit"),
    "nets, lace, webs": ("net", "lace", "web"),
    "gaps in solid things": ("sieve", "basket", "wheel", "springs", "turned"),
    "plants": ("twig", "large_leaf", "fern", "grass", "flower", "seed_heads"),
    "glass, film, wings": ("glass", "bubbles", "film", "wings"),
    "smoke, veils": ("smoke", "veil"),
}
"""Subjects of the generator by the kind of their edges."""
DEFOCUS, MOTION = "out of focus", "in motion"


CLASSICAL: dict[str, Callable[..., Any]] = {
    "closed form": estimate_alpha_cf,
    "KNN": estimate_alpha_knn,
    "learning based": estimate_alpha_lbdm,
}
"""Classical methods of pymatting by name; they run with their default options."""


class Row(NamedTuple):
    """Mean scores of the scenes of one kind; ``sads`` by method and width of the trimap."""

    kind: str
    scenes: int
    sads: tuple[float, ...]


def kinds_of(entry: Entry) -> list[str]:
    """Return the kinds that a scene counts for."""
    found = [kind for kind, subjects in KINDS.items() if entry.subject in subjects]
    camera = entry.parameters["camera"]
    if camera["focus"] != "deep":
        found.append(DEFOCUS)
    return found + [MOTION] * bool(camera["moves"])


def rows(sads: Mapping[str, tuple[float, ...]], index: Iterable[Entry]) -> list[Row]:
    """Return the mean scores of each kind that has scenes, and of all scenes.

    Args:
        sads: scores by the scene's name.
        index: of the rendered foregrounds; entries without a scene are left out.
    """
    groups: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for entry in index:
        scene = sads.get(Path(entry.file).stem)
        for kind in kinds_of(entry) if scene is not None else ():
            groups[kind].append(sads[Path(entry.file).stem])
    order = [kind for kind in (*KINDS, DEFOCUS, MOTION) if kind in groups]
    groups["all"] = list(sads.values())
    return [Row(kind, len(groups[kind]), _means(groups[kind])) for kind in (*order, "all")]


def table(found: Iterable[Row], columns: Iterable[str]) -> str:
    """Return a Markdown table with one row for each kind."""
    heads = ["edges", "scenes", *columns]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {row.kind} | {row.scenes} | {' | '.join(f'{x:.2f}' for x in row.sads)} |" for row in found]
    return "\n".join(lines)


def scene_sads(pair: Pair, methods: Iterable[Method], wide: Path) -> tuple[float, ...]:
    """Return the SAD of each method with the narrow, then with the wide trimap of a scene."""
    samples = [read_sample(pair), read_sample(pair._replace(trimap=wide / f"{pair.name}.png"))]
    found = []
    for method in methods:
        for sample in samples:
            assert sample.alpha is not None, "the pairs were found with alphas"
            alpha = apply_known(method(sample.image, sample.trimap), sample.trimap)
            found.append(sad(alpha, apply_known(sample.alpha, sample.trimap), sample.trimap))
    return tuple(found)


def solvable(pair: Pair, wide: Path) -> bool:
    """Return whether both trimaps of a scene have known foreground and known background."""
    found = [
        set(np.unique(dim.trimap.read(path).trimap)) for path in (pair.trimap, wide / f"{pair.name}.png")
    ]
    return all({dim.trimap.BACKGROUND, dim.trimap.FOREGROUND} <= levels for levels in found)


def main() -> None:
    """Print the tables."""
    given = parse()
    wide = given.scenes / "trimaps_wide"
    pairs = find_pairs(given.scenes, alphas=True)
    chosen = [pair for pair in pairs if solvable(pair, wide)]
    print(f"{len(chosen)} of {len(pairs)} scenes have known foreground and background", file=sys.stderr)
    weights = sha256(model_path(given.model))
    sads = read_scores(given.scores, weights)
    with Matting(given.model, threads=given.threads) as matting:

        def ours(image: UInt8, trimap: UInt8) -> UInt8:
            return quantise8(matting(image, trimap))

        methods = [ours, *map(classical, CLASSICAL.values())]
        for pair in chosen:
            if pair.name not in sads:
                sads[pair.name] = scene_sads(pair, methods, wide)
                print(pair.name, *(f"{value:.2f}" for value in sads[pair.name]), file=sys.stderr, flush=True)
                if given.scores is not None:
                    document = {"model": weights, "sads": sads}
                    write_text(given.scores, json.dumps(document, indent=1) + "\n")
    names = [model_path(given.model).stem, *CLASSICAL]
    found = rows({pair.name: sads[pair.name] for pair in chosen}, read_index(given.index))
    for number, width in enumerate(("Narrow", "Wide")):
        print(f"{width} trimaps:\n")
        print(table([row._replace(sads=row.sads[number::2]) for row in found], names), end="\n\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", type=Path, help="folder that dim-train compose made")
    parser.add_argument("--index", type=Path, required=True, help="folder of the rendered foregrounds")
    parser.add_argument("--model", help="artefact; the embedded model by default")
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime")
    parser.add_argument(
        "--scores", type=Path, help="JSON of each scene's scores: written scene by scene, and continued"
    )
    return parser.parse_args()


def read_scores(path: Path | None, model: str) -> dict[str, tuple[float, ...]]:
    """Return the scores of an earlier run that was interrupted; none without a file.

    Raises:
        InputError: the scores of another model than the one with this SHA-256.
    """
    if path is None or not path.exists():
        return {}
    document = json.loads(path.read_text("utf-8"))
    if document.get("model") != model:
        raise InputError(f"cannot continue {path}", got="scores of another model", fix="another --scores")
    return {name: tuple(values) for name, values in document["sads"].items()}


def _means(scores: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(scores, axis=0).tolist())


if __name__ == "__main__":
    main()
