"""An unpickler that rebuilds plain data and descriptions of tensors, and cannot run anything.

Nothing that a pickle can reach here is shared with the rest of the process: a pickle may set attributes on
whatever it is handed (opcode BUILD), so even torch's own harmless helpers would be a way to change torch.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, TypeGuard

import torch

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_PLAIN_TYPES = {"set": set, "frozenset": frozenset, "complex": complex}
_INERT_BUILTINS = {
    "bool", "bytearray", "bytes", "dict", "float", "int", "list", "object", "range", "slice", "str", "tuple",
}  # fmt: skip
_CODE_RUNNING_MODULES = {
    "asyncio", "builtins", "__builtin__", "code", "codeop", "commands", "ctypes", "importlib", "io",
    "multiprocessing", "nt", "os", "pdb", "pickle", "_pickle", "pip", "posix", "profile", "pty", "runpy",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "timeit", "urllib",
    "webbrowser", "zipimport",
}  # fmt: skip


class CodeRequestedError(Exception):
    """Carries the name that the pickle asked for."""


class Placeholder:
    """Stands in for an object of an unknown class: takes whatever the pickle gives it and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def add(self, item: object) -> None: ...


class Dictionary(dict[Any, Any]):
    """An OrderedDict of the pickle, without the attributes that it would like to set (old state dicts do)."""

    def __setstate__(self, state: object) -> None: ...


class StorageReference(NamedTuple):
    """The flat memory behind tensors, by its key in the file; its bytes come later."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


class TensorReference:
    """A tensor described, not made: offset, size and stride, in elements, over a storage.

    No tuple subclass: the pickle must not be able to set anything on it.
    """

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(
        self, storage: StorageReference, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: object) -> None: ...

    def over(self, buffer: torch.Tensor) -> torch.Tensor:
        """The tensor, as a view of its storage's bytes (uint8, one axis)."""
        return buffer.view(self.storage.dtype).as_strided(self.size, self.stride, self.offset)


class _StorageClass:
    """What the names torch.FloatStorage and its like stand for."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: object) -> None: ...


class _Builder:
    """A function that a pickle may call; calling is all that it can do with it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None: ...


class RestrictedUnpickler(pickle.Unpickler):
    """Loads one pickle of a PyTorch file; ``storages`` then holds every storage it spoke of, by key."""

    def __init__(self, file: BinaryIO) -> None:
        # Text of Python 2 may be in any encoding; it is only ever metadata.
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storages: dict[str, StorageReference] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function that the pickle names; a placeholder for one unknown and inert.

        Raises:
            CodeRequestedError: the name belongs to a module that can run code.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return Dictionary
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _Builder(_describe_tensor)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Builder(lambda tensor, *_: tensor)
        if (module, name) == ("torch", "Size"):
            return tuple
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _StorageClass(_DTYPES[name])
        if module in ("builtins", "__builtin__") and name in _PLAIN_TYPES:
            return _PLAIN_TYPES[name]
        return _placeholder_or_refusal(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise pickle.UnpicklingError(f"a persistent id of an unknown kind: {pid!r:.80}")
        kind = pid[0].decode("ascii", "replace") if isinstance(pid[0], bytes) else pid[0]
        # The other kind is ("module", class, its file, its source): torch would compare the source with the
        # class's, and may write a patch file.
        return self._storage(*pid[1:]) if kind == "storage" else Placeholder

    def _storage(
        self, kind: object, key: object, _device: object, elements: object, view: object = None
    ) -> object:
        if not isinstance(kind, _StorageClass):
            return Placeholder()
        if view is not None or not isinstance(key, str) or not _is_size(elements):
            raise pickle.UnpicklingError(
                f"storage {key!r:.80} of {elements!r:.80} elements, view {view!r:.80}"
            )
        storage = StorageReference(key, kind.dtype, elements)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key!r:.80} is described in two ways")
        return storage


def _placeholder_or_refusal(module: str, name: str) -> type[Placeholder]:
    builtin = module in ("builtins", "__builtin__")
    if module.split(".")[0] in _CODE_RUNNING_MODULES and not (builtin and name in _INERT_BUILTINS):
        raise CodeRequestedError(f"{module}.{name}")
    return Placeholder


def _describe_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    if not isinstance(storage, StorageReference):
        return Placeholder()
    if not (_is_size(offset) and _are_sizes(size) and _are_sizes(stride) and len(size) == len(stride)):
        raise pickle.UnpicklingError(f"a tensor of size {size!r:.80} and stride {stride!r:.80}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.elements or (0 not in size and last >= storage.elements):
        raise pickle.UnpicklingError(
            f"a tensor of size {size} reaches beyond its storage of {storage.elements}"
        )
    return TensorReference(storage, offset, tuple(size), tuple(stride))


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 48


def _are_sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(_is_size(value) for value in values)
