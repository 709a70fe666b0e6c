"""Score a model and closed-form matting on composed scenes, by kind of edge.

    dim-train render --held-out --seeds 900000:900100 -o HELD_OUT
    dim-train render --held-out --seeds 900000:900040 --backgrounds -o BACKGROUNDS
    dim-train compose HELD_OUT BACKGROUNDS -o SCENES
    python tools/edge_scores.py SCENES --index HELD_OUT

Prints a table: mean SAD over unknown pixels, in thousands, with narrow and with wide trimaps. A scene counts
for the kind of its subject, and for defocus and motion as well if its camera was out of focus or its subject
moved. Scenes without known foreground or background are left out: closed form needs both.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import dim.trimap
from dim.arrays import UInt8
from dim.bit_depth import quantise8
from dim.metrics import sad
from dim.trimap import apply_known
from dim_runtime import Matting
from dim_runtime.images.pairs import Pair, find_pairs, read_sample
from dim_training.data.render.data_set import Entry, read_index
from jpeg_scores import Method, closed_form

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
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", type=Path, help="folder that dim-train compose made")
    parser.add_argument("--index", type=Path, required=True, help="folder of the rendered foregrounds")
    parser.add_argument("--model", help="artefact; the embedded model by default")
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime")
    given = parser.parse_args()
    wide = given.scenes / "trimaps_wide"
    pairs = find_pairs(given.scenes, alphas=True)
    chosen = [pair for pair in pairs if solvable(pair, wide)]
    print(f"{len(chosen)} of {len(pairs)} scenes have known foreground and background", file=sys.stderr)
    with Matting(given.model, threads=given.threads) as matting:

        def ours(image: UInt8, trimap: UInt8) -> UInt8:
            return quantise8(matting(image, trimap))

        sads = {pair.name: scene_sads(pair, (ours, closed_form), wide) for pair in chosen}
    name = "dim-compact" if given.model is None else Path(given.model).stem
    columns = [f"{method}, {width}" for method in (name, "closed form") for width in ("narrow", "wide")]
    print(table(rows(sads, read_index(given.index)), columns))


def _means(scores: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(scores, axis=0).tolist())


if __name__ == "__main__":
    main()
