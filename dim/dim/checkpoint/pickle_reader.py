"""Reading PyTorch's files, of 2020 and of today, without running anything that is in them.

Both containers are taken apart here, not by ``torch.load``: given an unpickler of one's own, that also opens
TorchScript archives, unpacks tar files, writes patch files where a file asks it to, and leaves tensors
uninitialised that the file says nothing about.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dim.checkpoint.restricted_pickle import (
    CodeRequestedError,
    RestrictedUnpickler,
    StorageReference,
    TensorReference,
)
from dim.errors import CheckpointError

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE = "/data.pkl"

_DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, TypeError, KeyError,
    AttributeError, IndexError, OverflowError, ImportError, AssertionError, OSError, MemoryError,
)  # fmt: skip
"""What Python's and torch's readers raise on bytes that make no sense."""


def load(path: Path) -> Any:
    """The object in a PyTorch file, legacy or zip: plain data, with unknown classes as placeholders.

    Tensors at the top and one dictionary further down are made, on the CPU; deeper ones stay descriptions.

    Raises:
        CheckpointError: not such a file, truncated, or it names something that runs code.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except CodeRequestedError as error:
        raise CheckpointError(
            f"refused to read {path}: the file wants to run code",
            got=f"the pickle asks for {error}",
            expected="tensors and plain data",
            why="nothing in it was run",
            fix="do not use this file; ask its authors for the weights, as safetensors where they offer it",
        ) from None
    except _DAMAGED as error:
        raise CheckpointError(
            f"cannot read {path}",
            got="a file that is not a PyTorch checkpoint, or a damaged one",
            why=f"{type(error).__name__}: {error}".splitlines()[0],
        ) from error


def _read(file: BinaryIO, path: Path) -> Any:
    if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
        return _read_zip(file, path)
    file.seek(0)
    if tarfile.is_tarfile(path):
        raise _wrong_container(path, "a tar archive")
    return _read_legacy(file)


def _read_zip(file: BinaryIO, path: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            raise _wrong_container(path, "a TorchScript archive")
        _require_stored(archive, path)
        (data,) = [name for name in names if name.endswith(_PICKLE)]
        root = data.removesuffix(_PICKLE)
        if f"{root}/byteorder" in names:
            _require(archive.read(f"{root}/byteorder") == b"little", "its numbers are big-endian")
        with archive.open(data) as opened:
            unpickler = RestrictedUnpickler(opened)  # type: ignore[arg-type]
            loaded = unpickler.load()
        buffers = {
            key: _buffer(archive.read(f"{root}/data/{key}"), s) for key, s in unpickler.storages.items()
        }
    return _with_tensors(loaded, buffers)


def _require_stored(archive: zipfile.ZipFile, path: Path) -> None:
    # torch stores without compression, so entries that unpack to more than the file are a trap.
    total = sum(entry.file_size for entry in archive.infolist())
    _require(total <= path.stat().st_size, f"its entries unpack to {total} bytes, more than the file has")


def _read_legacy(file: BinaryIO) -> Any:
    magic, protocol, system = (RestrictedUnpickler(file).load() for _ in range(3))
    _require(
        magic == _LEGACY_MAGIC and protocol == _LEGACY_PROTOCOL, "no magic number of PyTorch at its start"
    )
    _require(isinstance(system, dict) and system.get("little_endian", True), "its numbers are big-endian")
    unpickler = RestrictedUnpickler(file)
    loaded = unpickler.load()
    keys = RestrictedUnpickler(file).load()
    buffers = {key: _legacy_buffer(file, unpickler.storages[key]) for key in keys}
    return _with_tensors(loaded, buffers)


def _legacy_buffer(file: BinaryIO, storage: StorageReference) -> Tensor:
    elements = int.from_bytes(file.read(8), "little")
    _require(
        elements == storage.elements, f"storage {storage.key} has {elements} elements, not {storage.elements}"
    )
    return _buffer(file.read(storage.bytes), storage)


def _buffer(content: bytes, storage: StorageReference) -> Tensor:
    _require(
        len(content) == storage.bytes, f"storage {storage.key} has {len(content)} bytes, not {storage.bytes}"
    )
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8)
    )


def _with_tensors(loaded: Any, buffers: Mapping[str, Tensor], depth: int = 2) -> Any:
    if isinstance(loaded, TensorReference):
        return loaded.over(buffers[loaded.storage.key])
    if isinstance(loaded, dict) and depth:
        return {key: _with_tensors(value, buffers, depth - 1) for key, value in loaded.items()}
    return loaded


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(otherwise)


def _wrong_container(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(
        f"cannot read {path}",
        got=kind,
        expected="a state dict saved with torch.save, or safetensors",
        fix="load it where it was made and save its state_dict()",
    )
