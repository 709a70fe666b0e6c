"""Hostile and damaged files: nothing in them runs, nothing leaks, and the error is ours."""

from __future__ import annotations

import collections
import contextlib
import datetime
import io
import json
import math
import os
import pickle
import sys
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dim import checkpoint
from dim.checkpoint import pickle_reader
from dim.checkpoint.restricted_pickle import Placeholder
from dim.contract import IMAGE_MEAN, IMAGE_STD, NetworkConfig
from dim.errors import CheckpointError
from dim.network import DIM

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


def test_the_refusal_names_the_function(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    torch.save({"meta": _Calls(os.system, "true")}, path)
    with pytest.raises(CheckpointError, match=r"posix\.system") as caught:
        checkpoint.load(path)
    assert "would run code" in str(caught.value)


def _legacy_file(path: Path, body: bytes, keys: bytes = b"\x80\x02].") -> Path:
    """Return a legacy file around a hand-written pickle."""
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
def test_a_pickle_cannot_set_attributes(tmp_path: Path, name: str, read: Any) -> None:
    before = read()
    state = pickle.dumps((None, {"__defaults__": ("poison",)}), 2)[2:-1]
    _load_quietly(_legacy_file(tmp_path / "dim.pth", b"\x80\x02c" + name.encode() + b"\n" + state + b"b."))
    assert read() == before


def test_no_patch_file_is_written(tmp_path: Path) -> None:
    """torch.load compares the source of pickled modules, and writes a patch if a class requests it."""
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
    """Return a pickle of one tensor over a storage "0", as torch writes it."""
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
    with pytest.raises(CheckpointError, match="has no numbers"):
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


@pytest.mark.parametrize("name", ["os\nsystem", "builtins\neval", "builtins\nglobals", "subprocess\nPopen"])
def test_getattr_reaches_nothing(tmp_path: Path, name: str) -> None:
    """MMEngine's pickles call getattr of a class; of a module that runs code it is refused all the same."""
    body = b"\x80\x02cbuiltins\ngetattr\nc" + name.encode() + b"\nX\x08\x00\x00\x00__call__\x86R."
    with pytest.raises(CheckpointError, match="would run code"):
        pickle_reader.load(_legacy_file(tmp_path / "dim.pth", body))


def test_getattr_of_a_class_is_a_placeholder_that_cannot_be_called(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    call = pickle.dumps((f"open({str(marker)!r}, 'w')",), 2)[2:-1]
    body = b"\x80\x02cbuiltins\ngetattr\ncbuiltins\nobject\nX\x04\x00\x00\x00evil\x86R" + call + b"R."
    assert isinstance(pickle_reader.load(_legacy_file(tmp_path / "dim.pth", body)), Placeholder)
    assert not marker.exists()


class _HistoryBuffer:
    """MMEngine's class as far as its pickles show: logs in numpy arrays, and methods of the class."""

    def __init__(self) -> None:
        self._log_history, self._count_history = np.arange(5.0), np.ones(5)
        self._statistics_methods = {"min": _HistoryBuffer.minimum}

    def minimum(self) -> float:
        return float(self._log_history.min())


class _ConfigDict(dict[str, Any]):
    pass


@pytest.fixture
def training_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return a checkpoint with all that a runner stores; its classes cannot be imported later."""
    model = DIM(NetworkConfig(stage=3, width=1 / 16))
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 4, 32, 32)).sum().backward()
    optimiser.step()
    module = ModuleType("mmengine_of_a_test")
    for kind in (_HistoryBuffer, _ConfigDict):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return {
        "meta": {
            "cfg": _ConfigDict(lr=1e-5, nested=_ConfigDict(a=[1, (2, 3)])),
            "time": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
            "path": Path("/tmp/run"),
            "seed": np.int64(3),
            "scores": collections.defaultdict(list, sad=[np.float32(50.5)]),
        },
        "state_dict": collections.OrderedDict(model.state_dict()),
        "message_hub": {"log_scalars": collections.OrderedDict(loss=_HistoryBuffer()), "tags": {"a", "b"}},
        "optimizer": optimiser.state_dict(),
        "param_schedulers": [{"last_step": 3, "queue": collections.deque([1.0], maxlen=4), "end": math.inf}],
    }


@pytest.mark.parametrize("protocol", [2, 4])
@formats
def test_a_checkpoint_of_a_training_run(
    tmp_path: Path, training_run: dict[str, Any], zipped: bool, protocol: int
) -> None:
    path = tmp_path / "iter_3.pth"
    torch.save(training_run, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    del sys.modules["mmengine_of_a_test"]
    model = checkpoint.load(path)
    assert model.config == NetworkConfig(stage=3, width=1 / 16)
    for key, value in model.state_dict().items():
        assert torch.equal(value, training_run["state_dict"][key])


def test_the_data_preprocessor_s_buffers_are_accepted_if_they_are_the_network_s(
    tmp_path: Path, training_run: dict[str, Any]
) -> None:
    weights = training_run["state_dict"]
    weights["data_preprocessor.mean"] = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    weights["data_preprocessor.std"] = torch.tensor(IMAGE_STD).view(3, 1, 1)
    torch.save({"state_dict": weights}, tmp_path / "dim.pth")
    assert checkpoint.load(tmp_path / "dim.pth").config.stage == 3
    weights["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    torch.save({"state_dict": weights}, tmp_path / "dim.pth")
    with pytest.raises(CheckpointError, match="normalised in another way"):
        checkpoint.load(tmp_path / "dim.pth")


@formats
def test_plain_data_is_what_torch_reads(tmp_path: Path, zipped: bool) -> None:
    weight = torch.arange(24.0).view(2, 3, 4)
    whole = {
        "w": weight.transpose(0, 2),
        "part": weight[1, :, 1:],
        "half": weight.half(),
        "parameter": torch.nn.Parameter(weight),
        "n": [1, -1, 300, 70000, 1 << 40, -(1 << 70), True, None, 1.5, "ü", (), (1,), (1, 2, 3, 4)],
        "nested": {"a": {1: {2.5: [[], {}]}}},
    }
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "dim.pth"
        torch.save(whole, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        found, expected = pickle_reader.load(path), torch.load(path, weights_only=False)
        for key in ("w", "part", "half", "parameter"):
            assert torch.equal(found.pop(key), expected.pop(key))
        assert found == expected


_PAIRS = b"N" + b"2\x86" * 60
_LIMITS = {
    "nested tuples": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "too many operations": b"\x80\x02" + b"N0" * 200_000 + b"N.",
    "doubling key": b"\x80\x02}" + _PAIRS + b"Ns.",
    "doubling set": b"\x80\x04\x8f(" + _PAIRS + b"\x90.",
    "doubling frozenset": b"\x80\x04(" + _PAIRS + b"\x91.",
    "doubling persistent id": b"\x80\x02" + _PAIRS + b"Q.",
    "doubling size": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00"
    + _PAIRS
    + b")tR.",
    "a far memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "long text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a long number": b"\x80\x02L" + b"9" * 200_000 + b"L\n.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
}


@pytest.mark.parametrize("body", _LIMITS.values(), ids=list(_LIMITS))
def test_small_files_take_little_memory_and_time(tmp_path: Path, body: bytes) -> None:
    path = _legacy_file(tmp_path / "dim.pth", body)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6
        assert time.process_time() - started < 10
    finally:
        tracemalloc.stop()


def test_a_tensor_of_many_axes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="8 axes"):
        pickle_reader.load(_zip_of(tmp_path / "dim.pth", _tensor(0, (1,) * 9, (1,) * 9)))


def test_many_tensors_over_one_storage(tmp_path: Path) -> None:
    weight = torch.zeros(1000)
    torch.save({f"{number}": weight.view(1000) for number in range(3)}, tmp_path / "dim.pth")
    with pytest.raises(CheckpointError, match="3000 elements, and their storages 1000"):
        pickle_reader.load(tmp_path / "dim.pth")


def test_an_entry_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "dim.pth"
    path.write_bytes(_saved(ZIP))
    _rewrite(
        path, lambda name, content: b"0" * 4000 if name.endswith("byteorder") else content, zipfile.ZIP_BZIP2
    )
    data = path.read_bytes()
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    path.write_bytes(data[: entry + 24] + (6).to_bytes(4, "little") + data[entry + 28 :])
    with pytest.raises(CheckpointError, match="is compressed"):
        pickle_reader.load(path)


@pytest.mark.parametrize("mode", ["w:bz2", "w:gz", "w:xz"])
def test_compressed_tar_files_are_not_unpacked(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "dim.pth"
    with tarfile.open(path, mode) as archive:
        entry = tarfile.TarInfo("zeros")
        entry.size = 1 << 24
        archive.addfile(entry, io.BytesIO(bytes(1 << 24)))
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        pickle_reader.load(path)


def test_a_small_file_does_not_make_a_wide_network(tmp_path: Path) -> None:
    torch.save({"backbone.encoder.layer1.0.weight": torch.zeros(128, 4, 3, 3)}, tmp_path / "dim.pth")
    with pytest.raises(CheckpointError, match=r"(?s)width 2.*missing \(41\)"):
        checkpoint.load(tmp_path / "dim.pth")


@pytest.mark.parametrize(
    "weights",
    [
        {"conv1_1.weight": torch.zeros(4), "deconv6_1.weight": torch.zeros(4)},
        {"backbone.encoder.layer1.0.weight": torch.zeros(4)},
        {"backbone.encoder.layer1.0.weight": torch.zeros(0, 4, 3, 3)},
        {"backbone.encoder.layer1.0.weight": torch.zeros(8, 4, 3, 3, dtype=torch.int8)},
        {"module.a": torch.zeros(1), "a": torch.zeros(1)},
        {"k" * 100_000: torch.zeros(1)},
    ],
)
def test_state_dicts_of_odd_tensors(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, tmp_path / "dim.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "dim.pth")
    assert len(str(caught.value)) < 3000


def _safetensors(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"__metadata__": {"dim": "[" * 100_000}}).encode(),
        json.dumps({"__metadata__": {"dim": '{"network": ' + "9" * 5000 + "}"}}).encode(),
        json.dumps({"__metadata__": {"dim": '{"network": {"width": 1e999}}'}}).encode(),
        b'{"a":' * 50_000,
        b'{"__metadata__": 3}',
        b"{" * 10,
    ],
)
def test_hostile_safetensors_headers(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(CheckpointError):
        checkpoint.load(_safetensors(tmp_path / "dim.safetensors", header))


@pytest.mark.parametrize("kind", ["F4", "F8_E4M3", "BOOL", "U64", "?"])
def test_safetensors_of_other_types(tmp_path: Path, kind: str) -> None:
    header = json.dumps({"a": {"dtype": kind, "shape": [2], "data_offsets": [0, 2]}}).encode()
    with pytest.raises(CheckpointError):
        checkpoint.load(_safetensors(tmp_path / "dim.safetensors", header, b"\x00\x00"))


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder"):
        checkpoint.load(tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_give_our_error_or_a_result(data: st.DataObject) -> None:
    content = bytearray(_saved(data.draw(st.sampled_from([LEGACY, ZIP]))))
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, 700))
        content[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dim.pth").write_bytes(content)
        _load_quietly(Path(folder) / "dim.pth")
