"""The folder of rendered images: seeds, index, settings, contact sheet; no Blender."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.errors import InputError, MissingExtraError
from dim_training.data.render import run
from dim_training.data.render.data_set import (
    DataSet,
    Entry,
    Settings,
    contact_sheet,
    file_name,
    read_index,
    soft_share,
    write_contact_sheet,
    write_image,
)
from dim_training.data.render.seeds import parse_seeds

SETTINGS = Settings(size=32, samples=2, alpha_samples=8)


def _add(data_set: DataSet, seed: int, level: int = 200) -> Entry:
    rgba = np.full((32, 32, 4), level, np.uint8)
    name = file_name(seed, "net")
    write_image(data_set.folder / name, rgba)
    entry = Entry(
        file=name, seed=seed, subject="net", soft=soft_share(rgba), parameters={"camera": {"fill": 0.9}}
    )
    data_set.add(entry)
    return entry


@pytest.mark.parametrize(
    "text", ["0:10", "500:2000", "899999:900001", "900000:900010", "5:5", "7:3", "7", "a:b", "-1:4"]
)
def test_seeds_that_are_taken_held_out_or_malformed_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_seeds(text, held_out=False)


def test_held_out_seeds_need_the_option() -> None:
    assert parse_seeds("20000:20003", held_out=False) == range(20_000, 20_003)
    assert parse_seeds("900000:900002", held_out=True) == range(900_000, 900_002)
    with pytest.raises(InputError, match="held out"):
        parse_seeds("20000:20003", held_out=True)
    with pytest.raises(InputError, match="--held-out"):
        parse_seeds("900000:900002", held_out=False)


def test_the_index_survives_a_torn_line_and_counts_existing_files_only(tmp_path: Path) -> None:
    data_set = DataSet(tmp_path, SETTINGS)
    first = _add(data_set, 20_001)
    with open(tmp_path / "index.jsonl", "ab") as index:
        index.write(b'{"file": "02000')
    second = _add(data_set, 20_000)
    assert read_index(tmp_path) == [second, first]
    (tmp_path / second.file).unlink()
    assert set(DataSet(tmp_path, SETTINGS).finished()) == {20_001}
    lines = (tmp_path / "index.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["parameters"] == {"camera": {"fill": 0.9}}


def test_other_settings_do_not_mix(tmp_path: Path) -> None:
    DataSet(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="another folder"):
        DataSet(tmp_path, Settings(size=64, samples=2, alpha_samples=8))
    (tmp_path / "render.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the settings"):
        DataSet(tmp_path, SETTINGS)


def test_images_keep_colours_and_alpha(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    write_image(tmp_path / "x.png", rgba)
    read = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., [2, 1, 0, 3]], rgba)


def test_the_contact_sheet_shows_every_image(tmp_path: Path) -> None:
    data_set = DataSet(tmp_path / "data", SETTINGS)
    entries = [_add(data_set, 20_000 + number, level=255) for number in range(5)]
    sheet = contact_sheet(data_set.folder, entries, columns=4, side=16)
    assert sheet.shape == (32, 64, 3)
    assert (sheet[:16] == 255).all()
    assert (sheet[16:, 16:] == 0).all()
    write_contact_sheet(tmp_path / "sheet.png", data_set.folder, entries)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 8 * 180


def test_a_contact_sheet_never_lies_among_the_foregrounds(tmp_path: Path) -> None:
    data_set = DataSet(tmp_path / "data", SETTINGS)
    entries = [_add(data_set, 20_000)]
    with pytest.raises(InputError, match="another folder"):
        write_contact_sheet(tmp_path / "data" / "sheet.png", data_set.folder, entries)
    with pytest.raises(InputError, match="no images"):
        write_contact_sheet(tmp_path / "sheet.png", data_set.folder, [])
    with pytest.raises(InputError, match=r"\.jpg or \.png"):
        write_contact_sheet(tmp_path / "sheet.abc", data_set.folder, entries)


def test_without_blender_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[render\]"):
        list(run.render_all(tmp_path, [20_000], SETTINGS, processes=1))
    assert not list(tmp_path.iterdir())


def test_backgrounds_and_foregrounds_do_not_mix(tmp_path: Path) -> None:
    backgrounds = SETTINGS.model_copy(update={"kind": "backgrounds", "alpha_samples": 0})
    DataSet(tmp_path, backgrounds)
    with pytest.raises(InputError, match="another folder"):
        DataSet(tmp_path, SETTINGS)


def test_settings_of_earlier_versions_are_of_foregrounds(tmp_path: Path) -> None:
    (tmp_path / "render.json").write_text('{"size":32,"samples":2,"alpha_samples":8,"version":1}')
    DataSet(tmp_path, SETTINGS)


def test_the_contact_sheet_shows_backgrounds_as_they_are(tmp_path: Path) -> None:
    data_set = DataSet(tmp_path, SETTINGS)
    rgb = np.tile(np.array([10, 120, 250], np.uint8), (32, 32, 1))
    write_image(tmp_path / file_name(20_000, "background"), rgb)
    entry = Entry(file="020000_background.png", seed=20_000, subject="background", soft=0, parameters={})
    np.testing.assert_array_equal(contact_sheet(data_set.folder, [entry], columns=1, side=32), rgb)
