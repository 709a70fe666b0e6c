"""Measure mattes from boxes and strokes: their SAD beside that of the true trimap.

    python examples/measure_trimaps.py PHOTOS -o out/trimaps.md

PHOTOS is a folder of images/, trimaps/ and alphas/. A simulated person draws with a round brush, and marks at
most a share of the photograph's pixels. Strokes are connected and bend little. They never leave the region of
the true trimap that they mark: foreground, background or unknown. These are the simulations, with a seed:

strokes at once: along the middle of the regions, far from one another, before any trimap is seen. A quarter
    of the marked pixels is foreground, a quarter background, and half unknown.
short strokes: the same with strokes of a fifth of the length, therefore more of them.
strokes, corrected: a part of the strokes at once, then rounds. In each,
    `dim_runtime.trimaps.strokes.propose` makes a trimap, and strokes go where it is most wrong: the widest
    part of an object taken for background, of a background taken for object, or of unknown pixels taken for
    known ones.
strokes, short corrections: the same, with short strokes in the rounds.
strokes, by the cut-out: the same, but the person looks at what `dim-matte auto` makes of the strokes so far,
    and draws where it is visibly wrong. Strokes over unknown pixels go where a pixel of the true unknown
    region was taken for known and has a wrong alpha.
box, strokes by the cut-out: the same, with a box around the object in place of the first strokes. A box that
    is the whole photograph, which is refused, is left out, and the strokes come first as above.

Beside them are marks that no person makes: "random pixels" marks that share of all pixels, each drawn at
random, with their levels in the true trimap. The box is the smallest one around all pixels that are not
certainly background, and a margin. With `--mask-model` a salient-object network sees the photograph
("network"), or the box and its surroundings ("box and network").

Every trimap is scored twice: as it is made, and as `dim-matte auto` uses it. A trimap of strokes is narrowed
after a first pass of the network; others are the same. The SAD is the sum of absolute differences over the
unknown pixels of the *true* trimap, divided by 1000.
"""

from __future__ import annotations

import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np

from dim.arrays import Bool, Float32, UInt8
from dim.bit_depth import quantise8
from dim.errors import DimError, InputError
from dim.files import write_text
from dim.metrics import sad
from dim.trimap import BACKGROUND, FOREGROUND, UNKNOWN, apply_known
from dim_runtime import Matting
from dim_runtime.images.pairs import MattingSample, Pair, find_pairs, read_sample
from dim_runtime.trimaps.bands import narrowed
from dim_runtime.trimaps.mask_model import Layout
from dim_runtime.trimaps.sources import TrimapSources
from dim_runtime.trimaps.strokes import Box, Strokes, propose

LEVELS = (FOREGROUND, BACKGROUND, UNKNOWN)
ROUNDS = 8
"""Rounds of the corrected strokes, the first included."""
FIRST_SHARE = 0.3
"""Share of the marked pixels that the first round draws."""
STROKE_SHARE = 0.05
"""Longest stroke as a share of the photograph's longer side."""
SHORT_SHARE = 0.01
"""The same of short strokes, which reach more places."""
DIRECTIONS = 16
TURN = 3
"""Largest turn between two steps of a stroke, in sixteenths of a full turn."""
VISIBLE = 0.1
"""Difference of alpha that a person sees in a cut-out."""
BOX_MARGIN = 0.02
"""Margin of the box around the object, as a share of the photograph's longer side."""


@dataclass
class Hand:
    """A simulated person with a brush.

    Attributes:
        truth: the true trimap, uint8 H, W.
        brush: width of the brush, pixels.
        random: chooses among places that are nearly as good.
        strokes: what is drawn so far.
        length: longest stroke, as a share of the photograph's longer side.
        marked: number of pixels that are marked so far.
    """

    truth: UInt8
    brush: int
    random: np.random.Generator
    strokes: Strokes
    length: float = STROKE_SHARE
    marked: int = 0

    def blind(self, level: int, budget: int) -> None:
        """Draw along the middle of a region, far from earlier strokes, until the budget is marked."""
        region = self.truth == level
        last = self.marked + budget
        while self.marked < last:
            clearance = _clearance(region & ~self.strokes.at(level))
            if clearance.max() < 1 or not self.draw(region, clearance, last):
                return

    def correct(self, wrong: dict[int, Bool], budget: int) -> None:
        """Draw where the widest mistakes are, until the budget is marked or mistakes are thin.

        Args:
            wrong: for each level the pixels that should have it, bool H, W.
            budget: number of pixels to mark.
        """
        last = self.marked + budget
        while self.marked < last:
            clearances = {level: _clearance(wrong[level] & ~self.strokes.at(level)) for level in LEVELS}
            worst = max(LEVELS, key=lambda level: clearances[level].max())
            if clearances[worst].max() < self.brush or not self.draw(wrong[worst], clearances[worst], last):
                return

    def draw(self, region: Bool, clearance: Float32, last: int) -> bool:
        """Draw one stroke; return False if nothing new could be marked."""
        noise = self.random.random(clearance.shape, np.float32)
        start = np.unravel_index(np.argmax(clearance * (0.8 + 0.2 * noise)), clearance.shape)
        level = int(self.truth[start])
        before = self.marked
        steps = round(self.length * max(clearance.shape) / (2 * self.brush) / 2)
        for first, second in _path(clearance, (int(start[1]), int(start[0])), 2 * self.brush, steps):
            # The part of the photograph that the segment can touch.
            left, top = (max(0, min(ends) - self.brush) for ends in zip(first, second, strict=True))
            right, bottom = (max(ends) + self.brush + 1 for ends in zip(first, second, strict=True))
            part = np.s_[top:bottom, left:right]
            layer = np.zeros(region[part].shape, np.uint8)
            points = ((x - left, y - top) for x, y in (first, second))
            cv2.line(layer, *points, 1, self.brush)
            marked, levels = self.strokes.marked[part], self.strokes.levels[part]
            rows, columns = np.nonzero((layer > 0) & region[part] & ~marked)
            room = last - self.marked
            marked[rows[:room], columns[:room]] = True
            levels[rows[:room], columns[:room]] = level
            self.marked += min(room, len(rows))
            if self.marked >= last:
                break
        return self.marked > before


def mistakes(truth: UInt8, trimap: UInt8) -> dict[int, Bool]:
    """Return the mistakes of a trimap by the level that is right there."""
    wrong = {level: (truth == level) & (trimap != level) for level in LEVELS}
    # A band that is too wide is no mistake that a person corrects.
    for level in (FOREGROUND, BACKGROUND):
        wrong[level] &= trimap != UNKNOWN
    return wrong


def visible_mistakes(sample: MattingSample, trimap: UInt8, matte: Float32) -> dict[int, Bool]:
    """Return the visible mistakes of a matte by the level that a stroke there has."""
    assert sample.alpha is not None, "find_pairs requires it"
    wrong = np.abs(matte - sample.alpha / np.float32(255)) > VISIBLE
    found = {level: wrong & (sample.trimap == level) for level in LEVELS}
    found[UNKNOWN] &= trimap != UNKNOWN
    return found


def _clearance(region: Bool) -> Float32:
    """Return the distance of every pixel to the outside of a region; the frame is no outside."""
    return np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _path(
    clearance: Float32, start: tuple[int, int], step: int, steps: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the segments of a stroke through the middle of a region, at most so many to both sides."""
    segments = []
    heading = None
    for side in (0, DIRECTIONS // 2):
        at, toward = start, None if heading is None else (heading + side) % DIRECTIONS
        for _ in range(steps):
            found = _next(clearance, at, toward, step)
            if found is None:
                break
            heading = found[1] if heading is None else heading
            segments.append((at, found[0]))
            at, toward = found
    return segments or [(start, start)]


def _next(
    clearance: Float32, at: tuple[int, int], toward: int | None, step: int
) -> tuple[tuple[int, int], int] | None:
    """Return the next point and heading: where the clearance is largest, without a sharp turn."""
    turns = range(DIRECTIONS) if toward is None else range(toward - TURN, toward + TURN + 1)
    best = None
    for turn in turns:
        angle = 2 * np.pi * turn / DIRECTIONS
        x, y = round(at[0] + step * np.cos(angle)), round(at[1] + step * np.sin(angle))
        if 0 <= y < clearance.shape[0] and 0 <= x < clearance.shape[1] and clearance[y, x] >= 1:
            # Nearly straight on where the clearance is the same.
            value = clearance[y, x] - 0.01 * abs(turn - (turn if toward is None else toward))
            if best is None or value > best[0]:
                best = value, (x, y), turn % DIRECTIONS
    return None if best is None else best[1:]


class Marks(NamedTuple):
    """What a trimap is made of."""

    strokes: Strokes
    box: Box | None = None


class Scene(NamedTuple):
    """What the simulated person has before them: a photograph with its truth, the toolkit, and the rules."""

    sample: MattingSample
    matting: Matting
    given: Namespace

    @property
    def truth(self) -> UInt8:
        """The true trimap, uint8 H, W."""
        return self.sample.trimap

    @property
    def budget(self) -> int:
        """The number of pixels that strokes may mark."""
        return int(self.given.share * self.truth.size)


def hand(scene: Scene, length: float = STROKE_SHARE) -> Hand:
    """Return a person who has drawn nothing yet."""
    truth = scene.truth
    brush = max(2, round(scene.given.brush * max(truth.shape)))
    return Hand(truth, brush, np.random.default_rng(scene.given.seed), Strokes.none(*truth.shape), length)


def at_once(scene: Scene, length: float = STROKE_SHARE) -> Marks:
    """Return strokes that are drawn before any trimap is seen."""
    person = hand(scene, length)
    for level in LEVELS:
        person.blind(level, scene.budget * (2 if level == UNKNOWN else 1) // 4)
    return Marks(person.strokes)


def first_strokes(scene: Scene) -> Hand:
    """Return a person who has drawn the first part of their strokes, and draws the others in rounds."""
    person = hand(scene)
    for level in (FOREGROUND, BACKGROUND):
        person.blind(level, int(FIRST_SHARE * scene.budget / 2))
    return person


def corrected(scene: Scene, length: float = STROKE_SHARE) -> Marks:
    """Return strokes that react to earlier trimaps; those that do have the given length."""
    person = first_strokes(scene)
    person.length = length
    for left in range(ROUNDS - 1, 0, -1):
        wrong = mistakes(scene.truth, propose(scene.sample.image, person.strokes))
        person.correct(wrong, (scene.budget - person.marked) // left)
    assert person.marked <= scene.budget, "the share of marked pixels is part of the measurement"
    return Marks(person.strokes)


def by_cutout(scene: Scene, box: Box | None = None) -> Marks:
    """Return short strokes that react to earlier cut-outs; without a box there are first strokes."""
    image = scene.sample.image
    person = first_strokes(scene) if box is None else hand(scene)
    person.length = SHORT_SHARE
    for left in range(ROUNDS - 1, 0, -1):
        # As dim-matte auto.
        trimap = propose(image, person.strokes, box)
        trimap = narrowed(trimap, scene.matting(image, trimap), person.strokes.marked)
        wrong = visible_mistakes(scene.sample, trimap, scene.matting(image, trimap))
        person.correct(wrong, (scene.budget - person.marked) // left)
    assert person.marked <= scene.budget, "the share of marked pixels is part of the measurement"
    return Marks(person.strokes, box)


def boxed_by_cutout(scene: Scene) -> Marks:
    """Return a box, and strokes that react to earlier cut-outs; no box if it is the whole photograph."""
    marks = boxed(scene.truth)
    try:
        propose(scene.sample.image, *marks)
    except DimError:
        return by_cutout(scene)
    return by_cutout(scene, marks.box)


def random_pixels(scene: Scene) -> Marks:
    """Return marks on single pixels anywhere."""
    truth = scene.truth
    chosen = np.random.default_rng(scene.given.seed).choice(truth.size, scene.budget, replace=False)
    strokes = Strokes.none(*truth.shape)
    strokes.marked.flat[chosen] = True
    strokes.levels[strokes.marked] = truth[strokes.marked]
    return Marks(strokes)


def boxed(truth: UInt8) -> Marks:
    """Return the box around the object."""
    margin = round(BOX_MARGIN * max(truth.shape))
    rows, columns = (np.flatnonzero((truth != BACKGROUND).any(axis=axis)) for axis in (1, 0))
    top, bottom = max(0, rows[0] - margin), min(truth.shape[0], rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(truth.shape[1], columns[-1] + 1 + margin)
    return Marks(Strokes.none(*truth.shape), Box(int(left), int(top), int(right - left), int(bottom - top)))


WAYS: dict[str, Callable[[Scene], Marks]] = {
    "box": lambda scene: boxed(scene.truth),
    "strokes at once": at_once,
    "short strokes": lambda scene: at_once(scene, SHORT_SHARE),
    "strokes, corrected": corrected,
    "strokes, short corrections": lambda scene: corrected(scene, SHORT_SHARE),
    "strokes, by the cut-out": by_cutout,
    "box, strokes by the cut-out": boxed_by_cutout,
    "random pixels": random_pixels,
}

NETWORKS = ("network", "box and network")
"""Ways that need a mask model."""


def main() -> None:
    """Read the command line, score every photograph in every way, and print or write the tables."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of images/, trimaps/, alphas/")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file for the tables")
    parser.add_argument("--share", type=float, default=0.01, help="of the pixels that strokes mark")
    parser.add_argument("--brush", type=float, default=0.0025, help="its width, over the longer side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="photographs; all by default")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *NETWORKS], help="all by default")
    parser.add_argument("--model", help="artefact, or the name of a shipped one; the embedded one by default")
    parser.add_argument("--mask-model", type=Path, help="as of dim-matte auto")
    parser.add_argument("--mask-layout", choices=get_args(Layout), help="as of dim-matte auto")
    parser.add_argument("--save", type=Path, help="folder for the trimaps")
    given = parser.parse_args()
    if not 0 < given.share < 1:
        parser.error(f"--share {given.share:g}: more than 0 and less than 1")
    given.ways = given.ways or [*WAYS, *(NETWORKS if given.mask_model else ())]
    try:
        text = table(given)
    except (DimError, OSError) as error:
        sys.exit(f"error: {error}")
    if given.output:
        write_text(given.output, text)
    print(text)


def table(given: Namespace) -> str:
    """Return two Markdown tables, one row a photograph: trimaps after narrowing, and before it."""
    rows: dict[str, tuple[list[float | None], list[float | None]]] = {}
    pairs = {pair.name: pair for pair in find_pairs(given.photos, alphas=True)}
    missing = sorted({*(given.only or ())} - {*pairs})
    if missing:
        raise InputError("cannot find these photographs", got=", ".join(missing), expected=", ".join(pairs))
    with Matting(given.model) as matting:
        for pair in pairs.values():
            if given.only is None or pair.name in given.only:
                rows[pair.name] = scores(pair, matting, given)
                print(pair.name, *(_cell(each) for both in rows[pair.name] for each in both), file=sys.stderr)
    proposed, narrow = (
        _lines({name: both[number] for name, both in rows.items()}, given) for number in range(2)
    )
    return f"Narrowed by a first pass:\n\n{narrow}\nAs proposed:\n\n{proposed}"


def _lines(rows: dict[str, list[float | None]], given: Namespace) -> str:
    columns = list(zip(*rows.values(), strict=True))
    # A mean over fewer photographs would not stand beside the others.
    rows["**mean**"] = [None if None in each else statistics.mean(each) for each in columns]
    lines = [
        f"| photograph | true trimap | {' | '.join(given.ways)} |",
        "|---|---|" + "---|" * len(given.ways),
    ]
    lines += [f"| {name} | {' | '.join(map(_cell, values))} |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


def scores(pair: Pair, matting: Matting, given: Namespace) -> tuple[list[float | None], list[float | None]]:
    """Return the SADs of the true trimap and of every way: proposed and narrowed; None without a trimap."""
    sample = read_sample(pair)
    truth, alpha = sample.trimap, sample.alpha
    assert alpha is not None, "find_pairs requires it"

    def score(trimap: UInt8, name: str) -> tuple[float, Float32]:
        if given.save:
            given.save.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(given.save / f"{pair.name} {name}.png"), trimap)
        matte = matting(sample.image, trimap)
        return unknown_sad(quantise8(matte), alpha, truth), matte

    best = score(truth, "true trimap")[0]
    proposed: list[float | None] = [best]
    narrow: list[float | None] = [best]
    for way in given.ways:
        try:
            trimap, marked = made(way, pair, Scene(sample, matting, given))
        except DimError:
            proposed.append(None)
            narrow.append(None)
            continue
        first, matte = score(trimap, f"{way}, proposed")
        proposed.append(first)
        # As dim-matte auto: without strokes nothing is narrowed.
        narrow.append(score(narrowed(trimap, matte, marked), way)[0] if marked.any() else first)
    return proposed, narrow


def unknown_sad(alpha: UInt8, true_alpha: UInt8, trimap: UInt8) -> float:
    """Return the SAD over the unknown pixels of a trimap: both alphas get its known pixels."""
    return sad(apply_known(alpha, trimap), apply_known(true_alpha, trimap), trimap)


def made(way: str, pair: Pair, scene: Scene) -> tuple[UInt8, Bool]:
    """Return the trimap of a way, and the pixels that strokes mark."""
    if way in NETWORKS:
        given = scene.given
        box = boxed(scene.truth).box if way == "box and network" else None
        sources = TrimapSources(
            image=pair.image, box=box, mask_model=given.mask_model, mask_layout=given.mask_layout
        )
        return sources.make(), np.zeros(scene.truth.shape, np.bool_)
    strokes, box = WAYS[way](scene)
    return propose(scene.sample.image, strokes, box), strokes.marked


def _cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
