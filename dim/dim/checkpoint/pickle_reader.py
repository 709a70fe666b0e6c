"""Reading PyTorch's files, of 2020 and of today, without running anything that is in them.

Both containers are taken apart here, not by ``torch.load``. With a custom unpickler, ``torch.load`` also
opens TorchScript archives, unpacks tar files, writes patch files on request of the file, and leaves tensors
uninitialised for which the file has no numbers.

Only the state dict is made into tensors. The optimiser, schedulers, message hub and configuration that
training frameworks store beside it are read as placeholders.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
_TAR_MAGIC, _TAR_MAGIC_PLACE = b"ustar", 257
_PICKLE = "/data.pkl"

MAX_SHARING = 2
"""Limit of the tensors' elements over those of their storages; tied weights are stored once, used twice."""

_DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, TypeError, LookupError,
    AttributeError, OverflowError, AssertionError, OSError, MemoryError,
)  # fmt: skip
"""Errors of Python's and torch's readers on damaged bytes."""


def load(path: Path, *, depth: int = 2) -> Any:
    """Read the state dict of a PyTorch file, legacy or zip.

    Args:
        path: the file.
        depth: levels of nested dictionaries in which tensors are made; deeper ones stay descriptions.

    Returns:
        The object under "state_dict", or the whole object where there is no such key: plain data with
        placeholders for unknown classes, and tensors on the CPU.

    Raises:
        CheckpointError: not such a file, damaged, or it names something that runs code.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read(content, path, depth)
    except CodeRequestedError as error:
        raise CheckpointError(
            f"refused to read {path}: the file would run code",
            got=f"the pickle names {error}",
            expected="tensors and plain data",
            why="nothing in it was run",
            fix="do not use this file; request the weights from its authors, if possible as safetensors",
        ) from None
    except _DAMAGED as error:
        raise CheckpointError(
            f"cannot read {path}",
            got="a file that is not a PyTorch checkpoint, or a damaged one",
            why=f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0],
        ) from error


def _read(content: mmap.mmap, path: Path, depth: int) -> Any:
    if content[: len(_ZIP_MAGIC)] == _ZIP_MAGIC:
        return _read_zip(path, depth)
    if content[_TAR_MAGIC_PLACE : _TAR_MAGIC_PLACE + len(_TAR_MAGIC)] == _TAR_MAGIC:
        raise _wrong_container(path, "a tar archive")
    return _read_legacy(content, depth)


def _read_zip(path: Path, depth: int) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            raise _wrong_container(path, "a TorchScript archive")
        _require_stored(archive, path.stat().st_size)
        (data,) = [name for name in names if name.endswith(_PICKLE)]
        root = data.removesuffix(_PICKLE)
        if f"{root}/byteorder" in names:
            _require(archive.read(f"{root}/byteorder") == b"little", "its numbers are big-endian")
        unpickler = RestrictedUnpickler(io.BytesIO(archive.read(data)))
        loaded = _selected(unpickler.load())
        needed = _storages(loaded, depth)
        buffers = {key: _buffer(archive.read(f"{root}/data/{key}"), needed[key]) for key in needed}
    return _with_tensors(loaded, buffers, depth)


def _require_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse compressed entries, because torch does not compress, and the sizes that they declare may lie."""
    for entry in archive.infolist():
        _require(
            entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size,
            f"its entry {entry.filename[:80]} is compressed and would unpack to {entry.file_size} bytes",
        )
    total = sum(entry.file_size for entry in archive.infolist())
    _require(total <= size, f"its entries unpack to {total} bytes, more than the file has")


def _read_legacy(content: mmap.mmap, depth: int) -> Any:
    magic, protocol, system = (RestrictedUnpickler(content).load() for _ in range(3))
    _require(
        magic == _LEGACY_MAGIC and protocol == _LEGACY_PROTOCOL, "no magic number of PyTorch at its start"
    )
    _require(isinstance(system, dict) and system.get("little_endian", True), "its numbers are big-endian")
    unpickler = RestrictedUnpickler(content)
    loaded = _selected(unpickler.load())
    keys = RestrictedUnpickler(content).load()
    needed = _storages(loaded, depth)
    buffers = {}
    # All storages follow in the order of their keys, each as its number of elements and its bytes.
    for key in keys:
        storage = unpickler.storages[key]
        elements = int.from_bytes(content.read(8), "little")
        _require(elements == storage.elements, f"storage {key[:80]} has {elements} elements")
        if key in needed:
            buffers[key] = _buffer(content.read(storage.bytes), storage)
        else:
            content.seek(storage.bytes, 1)
    return _with_tensors(loaded, buffers, depth)


def _selected(loaded: Any) -> Any:
    return loaded["state_dict"] if isinstance(loaded, dict) and "state_dict" in loaded else loaded


def _tensors(loaded: Any, depth: int) -> Iterator[TensorReference]:
    """Yield the tensors that :func:`_with_tensors` makes."""
    if isinstance(loaded, TensorReference):
        yield loaded
    elif isinstance(loaded, dict) and depth:
        for value in loaded.values():
            yield from _tensors(value, depth - 1)


def _storages(loaded: Any, depth: int) -> dict[str, StorageReference]:
    """Return the storages of the tensors to make, by key; refuse many tensors over the same storage."""
    references = list(_tensors(loaded, depth))
    storages = {tensor.storage.key: tensor.storage for tensor in references}
    stored = sum(storage.elements for storage in storages.values())
    used = sum(math.prod(tensor.size) for tensor in references)
    _require(used <= MAX_SHARING * stored, f"its tensors have {used} elements, and their storages {stored}")
    return storages


def _buffer(content: bytes, storage: StorageReference) -> Tensor:
    _require(
        len(content) == storage.bytes,
        f"storage {storage.key[:80]} has {len(content)} bytes, not {storage.bytes}",
    )
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _with_tensors(loaded: Any, buffers: Mapping[str, Tensor], depth: int) -> Any:
    if isinstance(loaded, TensorReference):
        key = loaded.storage.key
        _require(key in buffers, f"storage {key[:80]!r} has no numbers in the file")
        return loaded.over(buffers[key])
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
