"""The table of scores by kind of edge: every subject has one kind, and means are of the right scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.images.pairs import Pair
from dim_training.data.render.data_set import Entry
from dim_training.data.render.subjects import SUBJECTS
from edge_scores import KINDS, Row, kinds_of, read_scores, rows, solvable, table


def _entry(seed: int, subject: str, *, focus: str = "deep", moves: bool = False) -> Entry:
    camera = {"focus": focus, "moves": moves}
    return Entry(
        file=f"{seed}_{subject}.png", seed=seed, subject=subject, soft=0.1, parameters={"camera": camera}
    )


def test_every_subject_has_exactly_one_kind() -> None:
    assert {len(kinds_of(_entry(1, subject))) for subject in SUBJECTS} == {1}
    named = [subject for subjects in KINDS.values() for subject in subjects]
    assert sorted(named) == sorted(SUBJECTS)


def test_scenes_count_for_their_subject_for_defocus_and_for_motion() -> None:
    index = [_entry(1, "person"), _entry(2, "single_hairs", focus="missed"), _entry(3, "net", moves=True)]
    sads = {"1_person": (1.0, 2.0), "2_single_hairs": (3.0, 4.0), "3_net": (8.0, 9.0)}
    found = {row.kind: (row.scenes, row.sads) for row in rows(sads, [*index, _entry(9, "fern")])}
    assert found == {
        "hair": (2, (2.0, 3.0)),
        "nets, lace, webs": (1, (8.0, 9.0)),
        "out of focus": (1, (3.0, 4.0)),
        "in motion": (1, (8.0, 9.0)),
        "all": (3, (4.0, 5.0)),
    }


def test_the_table_is_markdown() -> None:
    found = [Row("hair", 2, (1.234, 5.0))]
    assert table(found, ["a", "b"]).splitlines() == [
        "| edges | scenes | a | b |",
        "|---|---|---|---|",
        "| hair | 2 | 1.23 | 5.00 |",
    ]


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"), [(255, 255, True), (255, 128, False), (0, 255, False)]
)
def test_scenes_without_known_foreground_are_left_out(
    tmp_path: Path, narrow: int, wide: int, expected: bool
) -> None:
    for folder, last in (("trimaps", narrow), ("wide", wide)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), np.array([[0, 128, last]], np.uint8))
    pair = Pair("a", tmp_path / "a.png", tmp_path / "trimaps" / "a.png")
    assert solvable(pair, tmp_path / "wide") is expected


def test_scores_of_another_model_are_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    assert read_scores(file, "a") == {}
    file.write_text('{"model": "a", "sads": {"one": [1.0, 2.0]}}')
    assert read_scores(file, "a") == {"one": (1.0, 2.0)}
    with pytest.raises(InputError, match="another model"):
        read_scores(file, "b")
