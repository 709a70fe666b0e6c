"""Annotation files of MMEditing and MMagic: what is read, and that all that is wrong is reported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dim.errors import InputError
from dim_training.data import annotations

Entry = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of 8 × 6 px for two entries; the second has no composite."""
    for name in ("alpha", "fg", "bg 0", "bg 1", "merged 0", "trimap 0", "trimap 1"):
        _image(tmp_path / "a set" / f"{name}.png")
    return tmp_path


@pytest.fixture
def entries() -> list[Entry]:
    return [
        {
            "alpha_path": "a set/alpha.png",
            "fg_path": "a set/fg.png",
            "bg_path": f"a set/bg {i}.png",
            "merged_path": f"a set/merged {i}.png",
            "trimap_path": f"a set/trimap {i}.png",
            "fg_extended_path": "is not read",
        }
        for i in range(2)
    ]


def _image(path: Path, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", size).save(path)


def _write(root: Path, document: object) -> Path:
    path = root / "list.json"
    path.write_text(json.dumps(document))
    return path


def _error(root: Path, document: object, **options: bool) -> str:
    with pytest.raises(InputError) as error:
        annotations.read(_write(root, document), root, **options)
    return str(error.value)


@pytest.mark.parametrize("generation", ["MMEditing 0.x", "MMagic 1.x"])
def test_both_generations_are_read(root: Path, entries: list[Entry], generation: str) -> None:
    document = entries if generation == "MMEditing 0.x" else {"metainfo": {}, "data_list": entries}
    found = annotations.read(_write(root, document), root)
    folder = root / "a set"
    assert found[1] == annotations.Annotation(
        alpha=folder / "alpha.png",
        foreground=folder / "fg.png",
        background=folder / "bg 1.png",
        merged=folder / "merged 1.png",
    )
    assert [item.background.name for item in found] == ["bg 0.png", "bg 1.png"]


def test_composites_must_exist_only_where_they_are_asked_for(root: Path, entries: list[Entry]) -> None:
    annotations.read(_write(root, entries), root)
    assert "merged 1.png: no such file" in _error(root, entries, composed=True)
    del entries[0]["merged_path"]
    assert annotations.read(_write(root, entries), root)[0].merged is None
    assert "entry 0: no merged_path" in _error(root, entries, composed=True)


@pytest.mark.parametrize("trimap", ["a set/gone.png", "", 3, None])
def test_trimaps_of_a_training_list_are_not_looked_at(
    root: Path, entries: list[Entry], trimap: object
) -> None:
    entries[0]["trimap_path"] = trimap
    (root / "a set" / "trimap 1.png").write_bytes(b"no image")
    assert len(annotations.read(_write(root, entries), root)) == 2
    with pytest.raises(InputError, match="trimap"):
        annotations.read_test(_write(root, entries), root)


def test_test_images_need_no_foreground(root: Path, entries: list[Entry]) -> None:
    del entries[0]["fg_path"], entries[0]["bg_path"]
    found = annotations.read_test(_write(root, entries[:1]), root)
    assert [path.name for path in found[0]] == ["alpha.png", "merged 0.png", "trimap 0.png"]
    with pytest.raises(InputError, match=r"merged 1\.png: no such file"):
        annotations.read_test(_write(root, entries), root)


def test_everything_wrong_is_told_together(root: Path, entries: list[Entry]) -> None:
    (root / "a set" / "bg 0.png").write_bytes(b"\x89PNG\r\n\x1a\nthat was all")
    (root / "a set" / "bg 1.png").unlink()
    _image(root / "a set" / "fg.png", (8, 7))
    wrong = [
        "a path",
        {"alpha": "a set/alpha.png", "fg_path": "a set/fg.png", "bg_path": " "},
        {"alpha_path": 3, "fg_path": "a set/fg.png", "bg_path": "a set/none.png"},
    ]
    text = _error(root, [*entries, *wrong])
    for part in (
        "8 problems",
        "entry 2: str instead of an object",
        "entry 3: no alpha_path (it has alpha, which lacks the ending _path)",
        "entry 3: bg_path is ' ', not a path",
        "entry 4: alpha_path is 3, not a path",
        "none.png: no such file",
        "bg 0.png: not an image, or damaged",
        "bg 1.png: no such file",
        "fg.png: 8 × 7 px, but ",
    ):
        assert part in text


def test_a_file_that_many_entries_share_is_told_once_and_long_lists_are_cut(root: Path) -> None:
    shared = {"alpha_path": "none.png", "fg_path": "a set/fg.png"}
    text = _error(root, [{**shared, "bg_path": f"{i:02}.png"} for i in range(30)])
    assert text.count("none.png: no such file") <= 1
    assert "… and 11 more; 31 in all" in text
    assert "19.png" in text
    assert "20.png" not in text


@pytest.mark.parametrize("document", [[], {}, {"data_list": []}, {"data_list": {}}, 3])
def test_documents_without_entries(root: Path, document: object) -> None:
    assert "a list of entries" in _error(root, document)


def test_files_that_are_not_there_or_not_json(root: Path) -> None:
    with pytest.raises(InputError, match="prepare-comp1k"):
        annotations.read(root / "none.json", root)
    for content in (b"[{]", b"\xff\xfe"):
        (root / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match="not JSON"):
            annotations.read(root / "bad.json", root)


def _turned_image(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (8, 6)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_files_that_exif_turns_away_from_their_alpha_are_refused(
    root: Path, entries: list[Entry], orientation: int
) -> None:
    _turned_image(root / "a set" / "fg.png", orientation)
    message = _error(root, entries)
    assert f"fg.png: EXIF orientation {orientation}, but" in message
    assert ("6 × 8 px" in message) == (orientation > 4)


def test_files_that_exif_turns_together_have_one_size(root: Path, entries: list[Entry]) -> None:
    for name in ("alpha", "fg", "bg 0", "bg 1", "trimap 0", "trimap 1"):
        _turned_image(root / "a set" / f"{name}.png", 6)
    assert len(annotations.read(_write(root, entries), root)) == 2


def test_a_background_may_have_any_orientation_of_its_size(root: Path, entries: list[Entry]) -> None:
    _turned_image(root / "a set" / "bg 0.png", 3)
    assert len(annotations.read(_write(root, entries), root)) == 2
    _turned_image(root / "a set" / "bg 0.png", 6)
    assert "bg 0.png: 6 × 8 px" in _error(root, entries)


def test_a_file_name_that_is_too_long_is_listed_as_a_problem(root: Path, entries: list[Entry]) -> None:
    """Found by `make fuzz`."""
    entries[1]["bg_path"] = "x" * 10_000
    path = root / "list.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="name too long"):
        annotations.read(path, root)


def test_a_deeply_nested_list_is_an_error_of_ours(root: Path) -> None:
    path = root / "list.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        annotations.read(path, root)


def test_damage_behind_the_header_of_a_png_is_listed_before_training(
    root: Path, entries: list[Entry]
) -> None:
    path = root / "a set" / "bg 0.png"
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT")
    content[place + 4 : place + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert "bg 0.png: broken" in _error(root, entries)
