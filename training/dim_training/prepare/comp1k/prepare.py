"""Preparation of Adobe Composition-1k: backgrounds cut to size, composites, and the annotation files.

Layout, names, order and pixels are those of MMEditing's preparation. The photographs come from COCO (2014 or
2017, training) and Pascal VOC 2012 (test).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from dim.errors import InputError
from dim.files import remove_leftovers, write_text
from dim_training.data.annotations import Size, listed, sizes_differ
from dim_training.prepare.comp1k import layout
from dim_training.prepare.comp1k.batches import Batch, batches, remaining, write
from dim_training.prepare.comp1k.layout import TEST, TRAINING, Entry, Photographs, Subset
from dim_training.prepare.comp1k.pixels import probe_all
from dim_training.processes import Crew, crew


class SetSummary(NamedTuple):
    """Result for one set: its annotation file, and how much that lists."""

    annotation: Path
    foregrounds: int
    compositions: int


class Summary(NamedTuple):
    """Result of a preparation.

    Attributes:
        training: None where it was left out.
        written: image files made in this run.
        kept: image files that an earlier run had made.
    """

    training: SetSummary | None
    test: SetSummary
    written: int
    kept: int


class _Plan(NamedTuple):
    """One set with everything that its annotation file will list; ``composed``: with composites."""

    subset: Subset
    entries: list[Entry]
    composed: bool


def prepare(
    data_root: Path,
    coco_root: Path,
    voc_root: Path,
    *,
    composite: bool = False,
    workers: int = 4,
    skip_train: bool = False,
    progress: bool = True,
    training: Subset = TRAINING,
    test: Subset = TEST,
) -> Summary:
    """Make ``bg/`` and ``merged/`` of both sets, then ``training_list.json`` and ``test_list.json``.

    Nothing is written before every file that is needed has been decoded. An interrupted preparation goes on
    where it stopped: every file appears whole, and what is there is kept; the annotation files come last.
    Take ``bg/`` and ``merged/`` away after a change of the archive or of the photographs.

    Args:
        data_root: the archive: ``Training_set/`` and ``Test_set/``.
        coco_root: holds ``train2014/`` or ``train2017/``; not looked at with ``skip_train``.
        voc_root: ``VOCdevkit``, which holds ``VOC2012/JPEGImages/``.
        composite: write the training set's composites too; the test set's always are.
        workers: processes; 1 works in this one.
        skip_train: prepare the test set alone.
        progress: a bar on standard error.
        training, test: the sets; other numbers of backgrounds than the published ones are for tests.

    Raises:
        InputError: no folder of photographs; lists that do not fit together; or files that are missing or
            damaged, all of them in one error.
        DimError: a file cannot be written, or a worker was killed.
    """
    sources = [(test, layout.find_voc(voc_root), True)]
    if not skip_train:
        sources.insert(0, (training, layout.find_coco(coco_root), composite))
    plans = _plan(data_root, sources)
    with crew(workers, progress=progress) as hands:
        wanted, left = _check(data_root, plans, hands)
        _make_folders(data_root, plans)
        written = hands.work(write, left, [batch.files for batch in left], "writing images")
    return _finish(data_root, plans, written=written, kept=sum(batch.files for batch in wanted) - written)


def _plan(root: Path, sources: list[tuple[Subset, Photographs, bool]]) -> list[_Plan]:
    names = layout.read_names(root, [subset for subset, _, _ in sources])
    return [
        _Plan(subset, layout.entries(root, subset, listed_names, photographs), composed)
        for (subset, photographs, composed), listed_names in zip(sources, names, strict=True)
    ]


def _check(root: Path, plans: list[_Plan], hands: Crew) -> tuple[list[Batch], list[Batch]]:
    """Return all batches, and those with files to write, after decoding every file that they need.

    The photographs of finished backgrounds are not needed any more, and are not decoded.
    """
    given = _given(plans)
    probes = dict(
        zip(given, hands.map(probe_all, [root / file for file in given], "given images"), strict=True)
    )
    sizes = {file: found.size for file, found in probes.items() if found.size is not None}
    wanted = [
        batch for plan in plans for batch in batches(root, plan.entries, composed=plan.composed, sizes=sizes)
    ]
    left = [batch for batch in hands.map(remaining, wanted, "finished images") if batch.tasks]
    photographs = sorted({task.photograph for batch in left for task in batch.tasks})
    problems = [*probes.values(), *hands.map(probe_all, photographs, "photographs")]
    _refuse(
        root, [found.problem for found in problems if found.problem] + _size_mismatches(root, plans, sizes)
    )
    return wanted, left


def _given(plans: list[_Plan]) -> list[str]:
    """Return the files of the archive that are needed, relative to its root."""
    entries = [entry for plan in plans for entry in plan.entries]
    foregrounds = {path for entry in entries for path in entry.foreground}
    return sorted(foregrounds | {entry.trimap for entry in entries if entry.trimap is not None})


def _size_mismatches(root: Path, plans: list[_Plan], sizes: dict[str, Size]) -> list[str]:
    """Report alphas and trimaps whose size is not their foreground's."""
    pairs = dict.fromkeys(
        (file, entry.foreground.colours)
        for plan in plans
        for entry in plan.entries
        for file in (entry.foreground.alpha, entry.trimap)
        if file in sizes and entry.foreground.colours in sizes
    )
    return [
        sizes_differ(root / file, sizes[file], root / colours, sizes[colours])
        for file, colours in pairs
        if file is not None and sizes[file] != sizes[colours]
    ]


def _refuse(root: Path, problems: list[str]) -> None:
    if problems:
        raise InputError(
            f"cannot prepare Composition-1k in {root}: {len(problems)} files are missing or cannot be used",
            got=listed(problems),
            expected="images of 8 bits a channel; alpha and trimaps of their foreground's size",
            fix="get these files again, then repeat the command; nothing has been written",
        )


def _make_folders(root: Path, plans: list[_Plan]) -> None:
    for plan in plans:
        for name in ("bg", "merged") if plan.composed else ("bg",):
            (root / plan.subset.folder / name).mkdir(exist_ok=True)


def _finish(root: Path, plans: list[_Plan], *, written: int, kept: int) -> Summary:
    for plan in plans:
        document = json.dumps([entry.annotation() for entry in plan.entries])
        write_text(root / plan.subset.annotation, document)
    folders = [root / plan.subset.folder / name for plan in plans for name in ("bg", "merged")]
    for folder in (root, *folders):
        remove_leftovers(folder)
    summaries = [_summarise(root, plan) for plan in plans]
    return Summary(summaries[0] if len(plans) > 1 else None, summaries[-1], written, kept)


def _summarise(root: Path, plan: _Plan) -> SetSummary:
    foregrounds = len({entry.foreground for entry in plan.entries})
    return SetSummary(root / plan.subset.annotation, foregrounds, len(plan.entries))
