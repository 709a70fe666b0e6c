"""What is scored is found and read, and all that is wrong with it is reported at once."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.images.pairs import read_sample
from dim_training.scoring.photographs import find_entries, prefetched, readable_entries, survey

NAMES = ("owl", "fox [1]", "cat")


def _write(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs of 40×50 px; red is 200, truth is 77, unknown are the rows from the 20th on."""
    trimap = np.zeros((40, 50), np.uint8)
    trimap[20:] = 128
    for name in NAMES:
        _write(tmp_path / "data" / "images" / f"{name}.png", np.full((40, 50, 3), (0, 100, 200), np.uint8))
        _write(tmp_path / "data" / "trimaps" / f"{name}.png", trimap)
        _write(tmp_path / "data" / "alphas" / f"{name}.tif", np.full((40, 50), 77, np.uint8))
    return tmp_path / "data"


def test_a_folder_is_read_in_order_as_rgb(folder: Path) -> None:
    photographs = [read_sample(entry) for entry in readable_entries(folder)]
    assert [photo.name for photo in photographs] == sorted(NAMES)
    assert photographs[0].image[0, 0].tolist() == [200, 100, 0]
    assert np.unique(photographs[0].trimap).tolist() == [0, 128]
    assert (photographs[0].alpha == 77).all()


def test_prefetching_keeps_the_order(folder: Path) -> None:
    entries = find_entries(folder)
    assert [photo.name for photo in prefetched(entries)] == [entry.name for entry in entries]
    assert list(prefetched([])) == []


def test_sixteen_bits_become_eight_by_257(folder: Path) -> None:
    _write(folder / "images" / "cat.png", np.full((40, 50, 3), 257 * 99 + 128, np.uint16))
    _write(folder / "alphas" / "cat.tif", np.full((40, 50), 257 * 99 + 129, np.uint16))
    photo = read_sample(find_entries(folder)[0])
    assert (photo.image == 99).all()
    assert (photo.alpha == 100).all()


def test_missing_and_ambiguous_files_are_listed_together(folder: Path) -> None:
    (folder / "alphas" / "owl.tif").unlink()
    (folder / "trimaps" / "fox [1].png").unlink()
    _write(folder / "trimaps" / "cat.bmp", np.zeros((40, 50), np.uint8))
    with pytest.raises(InputError) as caught:
        find_entries(folder)
    for line in ("3 problems", "no owl.* in", "no fox [1].* in", "2 files for cat in"):
        assert line in str(caught.value)


def test_damaged_and_mis_sized_files_are_listed_together(folder: Path) -> None:
    image = folder / "images" / "owl.png"
    image.write_bytes(image.read_bytes()[:-20])
    (folder / "alphas" / "owl.tif").write_bytes(b"")
    (folder / "trimaps" / "fox [1].png").write_bytes(b"no image")
    _write(folder / "alphas" / "cat.tif", np.zeros((50, 40), np.uint8))
    problems = survey(find_entries(folder)).problems
    assert [Path(line.partition(": ")[0]).name for line in problems] == [
        "cat.png",
        "fox [1].png",
        "owl.png",
        "owl.tif",
    ]
    assert "alpha 40×50 px" in problems[0]
    with pytest.raises(InputError, match="4 problems"):
        readable_entries(folder)


def test_a_mis_sized_photograph_is_not_read(folder: Path) -> None:
    _write(folder / "alphas" / "cat.tif", np.zeros((50, 40), np.uint8))
    with pytest.raises(InputError, match="image 50×40 px, trimap 50×40 px, alpha 40×50 px"):
        read_sample(find_entries(folder)[0])


def test_other_values_of_trimaps_are_counted(folder: Path) -> None:
    _write(folder / "trimaps" / "cat.png", np.array([[3, 130] * 25] * 40, np.uint8))
    found = survey(find_entries(folder))
    assert found.problems == []
    assert found.mapped == 2000
    assert np.unique(read_sample(find_entries(folder)[0]).trimap).tolist() == [0, 128]


@pytest.mark.parametrize("data", ["nothing", "empty"])
def test_no_data_is_an_error(data: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find_entries(tmp_path / data)


def _annotate(path: Path, names: list[str]) -> Path:
    files = (("merged", "images", "png"), ("trimap", "trimaps", "png"), ("alpha", "alphas", "tif"))
    rows = [{f"{key}_path": f"{kind}/{name}.{suffix}" for key, kind, suffix in files} for name in names]
    path.write_text(json.dumps(rows))
    return path


def test_an_annotation_file_names_paths_below_its_folder_or_another(folder: Path, tmp_path: Path) -> None:
    inside = _annotate(folder / "test_list.json", ["owl", "cat"])
    elsewhere = _annotate(tmp_path / "test_list.json", ["owl", "cat"])
    entries = find_entries(inside)
    assert [entry.name for entry in entries] == ["owl", "cat"]
    assert read_sample(entries[0]).image.shape == (40, 50, 3)
    assert find_entries(elsewhere, folder) == entries


def test_equal_stems_get_longer_names(folder: Path) -> None:
    for kind, suffix in (("images", "png"), ("trimaps", "png"), ("alphas", "tif")):
        source = folder / kind / f"owl.{suffix}"
        (folder / kind / "day").mkdir()
        (folder / kind / "day" / f"owl.{suffix}").write_bytes(source.read_bytes())
    entries = find_entries(_annotate(folder / "test_list.json", ["owl", "day/owl"]))
    assert [entry.name for entry in entries] == ["owl", "day/owl"]


def test_what_an_annotation_file_lacks_is_listed(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_entries(_annotate(folder / "test_list.json", ["owl", "wolf"]))
    for kind in ("images", "trimaps", "alphas"):
        assert f"{kind}/wolf" in str(caught.value)
