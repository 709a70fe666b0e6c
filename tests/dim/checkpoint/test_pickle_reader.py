"""Hostile and damaged files: nothing in them runs, nothing leaks, and the error is ours."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dim import checkpoint
from dim.checkpoint import pickle_reader
from dim.checkpoint.restricted_pickle import Placeholder
from dim.errors import CheckpointError

LEGACY, ZIP = False, True
formats = pytest.mark.parametrize("zipped", [LEGACY, ZIP], ids=["legacy", "zip"])


class _Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _attacks(marker: Path) -> dict[str, Any]:
    command = f"touch {marker}"
    return {
        "os.system": _Calls(os.system, command),
        "eval": _Calls(eval, f"open({str(marker)!r}, 'w')"),
        "exec": _Calls(exec, f"open({str(marker)!r}, 'w')"),
        "open": _Calls(open, str(marker), "w"),
        "nested getattr": _Calls(getattr, _Calls(__import__, "os"), "system"),
        "torch.load": _Calls(torch.serialization.load, str(marker)),
    }


def _places(attack: Any) -> dict[str, Any]:
    weight = torch.zeros(8, 4, 3, 3)
    return {
        "meta": {"meta": {"hook": attack}, "state_dict": {"w": weight}},
        "top": attack,
        "state_dict": {"state_dict": {"w": weight, "x": attack}},
        "bare": {"w": weight, "x": attack},
        "key": {"meta": [(attack,)], "state_dict": {}},
    }


@pytest.mark.parametrize("place", ["meta", "top", "state_dict", "bare", "key"])
@pytest.mark.parametrize("attack", ["os.system", "eval", "exec", "open", "nested getattr", "torch.load"])
@formats
def test_nothing_runs(tmp_path: Path, attack: str, place: str, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "dim.pth"
    torch.save(_places(_attacks(marker)[attack])[place], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not marker.exists()


def test_the_refusal_names_what_the_file_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    torch.save({"meta": _Calls(os.system, "true")}, path)
    with pytest.raises(CheckpointError, match=r"posix\.system") as caught:
        checkpoint.load(path)
    assert "wants to run code" in str(caught.value)


def _legacy_file(path: Path, body: bytes, keys: bytes = b"\x80\x02].") -> Path:
    """A legacy file around a hand-written pickle."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + body + keys)
    return path


def _load_quietly(path: Path) -> None:
    with contextlib.suppress(CheckpointError):
        pickle_reader.load(path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("torch._utils\n_rebuild_tensor_v2", lambda: torch._utils._rebuild_tensor_v2.__defaults__),
        ("torch.storage\nUntypedStorage", lambda: torch.UntypedStorage.__dict__.get("__defaults__")),
        ("torch\nFloatStorage", lambda: torch.FloatStorage.__dict__.get("__defaults__")),
        ("torch\nSize", lambda: torch.Size.__dict__.get("__defaults__")),
        ("any.where\nThing", lambda: Placeholder.__dict__.get("__defaults__")),
    ],
)
def test_a_pickle_cannot_set_attributes_on_what_it_gets(tmp_path: Path, name: str, read: Any) -> None:
    before = read()
    state = pickle.dumps((None, {"__defaults__": ("poison",)}), 2)[2:-1]
    _load_quietly(_legacy_file(tmp_path / "dim.pth", b"\x80\x02c" + name.encode() + b"\n" + state + b"b."))
    assert read() == before


def test_no_patch_file_is_written(tmp_path: Path) -> None:
    """torch.load compares the source of pickled modules, and writes a patch where a class asks for it."""
    state = pickle.dumps((None, {"dump_patches": True, "__name__": str(tmp_path / "written")}), 2)[2:-1]
    source = b"X\x01\x00\x00\x00fX\x05\x00\x00\x00hello"
    body = (
        b"\x80\x02(X\x06\x00\x00\x00modulectorch.storage\nUntypedStorage\n" + state + b"b" + source + b"tQ."
    )
    _load_quietly(_legacy_file(tmp_path / "dim.pth", body))
    assert [entry.name for entry in tmp_path.iterdir()] == ["dim.pth"]


def test_a_whole_module_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 8, 3), tmp_path / "dim.pth", _use_new_zipfile_serialization=LEGACY)
    with pytest.raises(CheckpointError, match="no state dict"):
        checkpoint.load(tmp_path / "dim.pth")


def _saved(zipped: bool) -> bytes:
    file = io.BytesIO()
    content = {"w": torch.arange(4096.0), "v": torch.arange(8)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 0.999])
@formats
def test_truncated(tmp_path: Path, share: float, zipped: bool) -> None:
    whole = _saved(zipped)
    (tmp_path / "dim.pth").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="cannot read"):
        pickle_reader.load(tmp_path / "dim.pth")


@formats
def test_flipped_bytes_give_our_error_or_a_result(tmp_path: Path, zipped: bool) -> None:
    whole, path = _saved(zipped), tmp_path / "dim.pth"
    for position in range(0, min(len(whole), 1500), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        _load_quietly(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n" + bytes(64), b"hello", pickle.dumps({"w": 1})]
)
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dim.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        checkpoint.load(tmp_path / "dim.pth")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dim.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("dim/data.pkl", "dim/constants.pkl", "dim/code/__torch__.py"):
            archive.writestr(name, b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="TorchScript"):
        checkpoint.load(path)


@pytest.mark.parametrize("tail", [b"", b"PK\x05\x06" + bytes(18)], ids=["tar", "tar that ends like a zip"])
def test_tar_is_refused(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "dim.pth"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(CheckpointError, match="tar archive"):
        checkpoint.load(path)


def _rewrite(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_a_record_shorter_than_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    path.write_bytes(_saved(ZIP))
    _rewrite(path, lambda name, content: content[:4] if "/data/" in name else content)
    with pytest.raises(CheckpointError, match="has 4 bytes, not"):
        pickle_reader.load(path)


def test_a_compression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    _rewrite(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpack to"):
        pickle_reader.load(path)


def test_big_endian_numbers(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    path.write_bytes(_saved(ZIP))
    _rewrite(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(CheckpointError, match="big-endian"):
        pickle_reader.load(path)


def _tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...], elements: int = 8) -> bytes:
    """A pickle of one tensor over a storage "0", as torch writes it."""
    storage = pickle.dumps(("storage", None, "0", "cpu", elements, None), 2)[2:-1]
    storage = storage.replace(b"N", b"ctorch\nFloatStorage\n", 1)
    parts = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride, False, None))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"Q" + parts + b"tR."


def _zip_of(path: Path, body: bytes, elements: int = 8) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", body)
        archive.writestr("a/data/0", torch.arange(float(elements)).numpy().tobytes())
    return path


def test_the_hand_written_tensor_is_read(tmp_path: Path) -> None:
    loaded = pickle_reader.load(_zip_of(tmp_path / "dim.pth", _tensor(1, (2, 3), (3, 1))))
    assert loaded.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)),
        (1, (8,), (1,)),
        (0, (2,), (8,)),
        (1 << 60, (1,), (1,)),
        (-4, (4,), (1,)),
        (0, (4,), (-1,)),
        (0, (1 << 40,), (0,)),
        (0, (2, 2), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(CheckpointError, match="a tensor of size"):
        pickle_reader.load(_zip_of(tmp_path / "dim.pth", _tensor(offset, size, stride)))


def test_a_legacy_tensor_without_its_numbers_is_not_left_uninitialised(tmp_path: Path) -> None:
    path = _legacy_file(tmp_path / "dim.pth", _tensor(0, (8,), (1,)))
    with pytest.raises(CheckpointError, match="KeyError"):
        pickle_reader.load(path)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x02" + b"]" * 1000 + b"a" * 2000 + b".",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # eight exabytes of bytes
        b"\x80\x05\x97.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02K\x01Q.",
    ],
)
def test_malformed_pickles(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(CheckpointError):
        pickle_reader.load(_legacy_file(tmp_path / "dim.pth", body))
