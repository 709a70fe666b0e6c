"""Files and folders: complete or not there, whatever their names and whatever goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from dim import files
from dim.errors import InputError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    files.write_text(path, "für\r\nalle\n")
    assert path.read_bytes() == "für\r\nalle\n".encode()
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert _names(path.parent) == ["text.txt"]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def fail() -> None:
        with files.atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".png"
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["x.png"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "n" * 245 + ".onnx", "a." + "s" * 253])
def test_the_longest_legal_names_can_be_written(tmp_path: Path, name: str) -> None:
    files.write_bytes(tmp_path / name, b"data")
    with files.replace_folder(tmp_path / "folder" / name) as new:
        (new / "file").touch()
    assert _names(tmp_path / "folder") == [name]
    assert _names(tmp_path) == sorted(["folder", name])


def test_names_that_are_no_utf_8_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    files.write_bytes(path, b"data")
    assert path.read_bytes() == b"data"
    files.write_text(tmp_path / "list", f"{path.name}\n")
    assert (tmp_path / "list").read_bytes() == b"\xff\xfe.png\n"


def test_what_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder\n.*a folder"):
        files.write_text(tmp_path / "folder", "")
    with pytest.raises(InputError, match=r"cannot write .*x\n.*: .*file"):
        files.write_text(tmp_path / "file" / "x", "")
    with pytest.raises(InputError, match=r"(?s)cannot write .*too long.*shorter name"):
        files.write_text(tmp_path / ("n" * 256), "")
    with pytest.raises(InputError, match="cannot write"):
        files.require_writable(tmp_path / "file" / "x")
    with pytest.raises(InputError, match="cannot read"):
        files.sha256(tmp_path / "none")
    assert _names(tmp_path) == ["file", "folder"]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    def copy() -> None:
        with files.atomic_path(tmp_path / "x"):
            (tmp_path / "source").read_bytes()

    with pytest.raises(InputError, match=r"cannot write .*x\n.*No such file.*source"):
        copy()


def test_pipes_and_devices_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        files.write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()


def test_many_threads_may_write_one_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=files.write_bytes, args=(tmp_path / "x", c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents
    assert _names(tmp_path) == ["x"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.png", ".a.png.12.partial", ".hidden")]
    kept += [files.temporary_path(tmp_path / "b.png"), files.resumable_path(tmp_path / "a.png")]
    for path in (files.temporary_path(tmp_path / "a.png"), *kept):
        path.touch()
    files.temporary_path(tmp_path / "a.png").mkdir()
    files.remove_leftovers(tmp_path, ["a.png"])
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    files.remove_leftovers(tmp_path)
    kept.pop(3)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("one", "two"):
        with files.replace_folder(folder) as new:
            assert not list(new.iterdir())
            (new / content).touch()
        assert _names(folder) == [content]
    assert _names(tmp_path) == ["folder"]
    assert files.current_folder(folder) == folder


def test_a_folder_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "old").mkdir(parents=True)

    def fail() -> None:
        with files.replace_folder(folder) as new:
            (new / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert _names(folder) == ["old"]
    assert _names(tmp_path) == ["folder"]


def test_a_kill_between_the_two_renames_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new = tmp_path / "folder", tmp_path / "new"
    (folder / "old").mkdir(parents=True)
    (new / "file").mkdir(parents=True)
    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        if source == new:
            raise SystemExit
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        files.put_folder(new, folder)
    monkeypatch.undo()
    left = files.current_folder(folder)
    assert left is not None
    assert _names(left) == ["old"]
    files.put_folder(new, folder)
    assert files.current_folder(folder) == folder
    assert _names(tmp_path) == ["folder"]
    assert files.current_folder(tmp_path / "none") is None


def test_a_rename_that_fails_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new = tmp_path / "folder", tmp_path / "new"
    (folder / "old").mkdir(parents=True)
    new.mkdir()
    rename = os.replace

    def refused(source: Path, target: Path) -> None:
        if source == new:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        files.put_folder(new, folder)
    assert _names(folder) == ["old"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"data")
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"data").hexdigest()


def test_the_problem_of_a_path_that_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.mkfifo(tmp_path / "pipe")
    found = [files.problem_of(path) for path in (file, tmp_path, tmp_path / "none", file / "below")]
    assert found == [None, "a folder", "no such file", "no such file"]
    assert files.problem_of(tmp_path / "pipe") == "not a regular file"
    assert files.problem_of(tmp_path / ("n" * 300)) == os.strerror(errno.ENAMETOOLONG)
    assert files.problem_of(Path("a\0b")) == "embedded null byte"
