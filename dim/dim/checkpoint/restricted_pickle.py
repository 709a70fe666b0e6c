"""An interpreter of pickles that builds plain data and descriptions of tensors, and cannot run anything.

``pickle.Unpickler`` calls what a file names. Even if every name is replaced by something harmless, a file can
make it hash structures that double with each opcode, or reserve gigabytes by one number. Here each opcode
does only what is written below. The result holds None, numbers, text, bytes, lists, tuples, dictionaries and
:class:`TensorReference`; everything else is a :class:`Placeholder`.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch

MAX_OPCODES = 250_000
"""Limit of one pickle. Checkpoints of a whole training run have some ten thousand."""
MAX_AXES = 8
"""Limit of a tensor's axes; a network of convolutions has at most 4."""

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_BUILTINS = ("builtins", "__builtin__")
_INERT_BUILTINS = {
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object",
    "range", "set", "slice", "str", "tuple",
}  # fmt: skip
"""Builtins that pickles of training runs name, ``getattr`` for methods of classes; none is ever called."""
_CODE_RUNNING_MODULES = {
    "asyncio", "builtins", "__builtin__", "code", "codeop", "commands", "ctypes", "importlib", "io",
    "multiprocessing", "nt", "os", "pdb", "pickle", "_pickle", "pip", "posix", "profile", "pty", "runpy",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "timeit", "urllib",
    "webbrowser", "zipimport",
}  # fmt: skip


class ByteReader(Protocol):
    """A file whose reads are bounded by its length: bytes in memory, or a memory map."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


class CodeRequestedError(Exception):
    """The pickle names something that runs code; the argument is the name."""


class Placeholder:
    """An object of a class that is not rebuilt; it holds nothing of what the pickle stores in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(placeholder)"


class Global(NamedTuple):
    """The name of a class or function, instead of the class or function."""

    module: str
    name: str


class StorageReference(NamedTuple):
    """The flat memory behind tensors, by its key in the file; its bytes come later."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        return self.elements * self.dtype.itemsize


class TensorReference(NamedTuple):
    """A tensor described, not made: offset, size and stride, in elements, over a storage."""

    storage: StorageReference
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def over(self, buffer: torch.Tensor) -> torch.Tensor:
        """Return the tensor as a view of its storage's bytes (uint8, one axis)."""
        return buffer.view(self.storage.dtype).as_strided(self.size, self.stride, self.offset)


class RestrictedUnpickler:
    """Reads one pickle of a PyTorch file.

    Attributes:
        storages: after :meth:`load`, every storage that the pickle names, by key.
    """

    def __init__(self, file: ByteReader) -> None:
        self.storages: dict[str, StorageReference] = {}
        self._file = file
        self._stack: list[Any] = []
        # Stacks below the marks that are open; the pickle works on the topmost.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the object; the file is then behind the pickle.

        Raises:
            CodeRequestedError: the pickle names something that runs code.
            pickle.UnpicklingError, ValueError, LookupError, TypeError: a damaged pickle.
        """
        # genops only decodes the arguments of opcodes, and raises ValueError for unknown and cut-off ones.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):  # type: ignore[arg-type]
            _require(count < MAX_OPCODES, f"a pickle of more than {MAX_OPCODES} operations")
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if name in _PUSHES_ARGUMENT:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _PUTS:
            place = len(self._memo) if argument is None else argument
            _require(place < MAX_OPCODES, "a memo of more objects than a pickle can have")
            self._memo[place] = self._stack[-1]
        elif name not in _IGNORED:
            _require(name in _OPERATIONS, f"opcode {name}")
            _OPERATIONS[name](self, argument)

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _tuple_of(self, count: int) -> None:
        _require(len(self._stack) >= count, "a tuple of more values than there are")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._extend(items)

    def _extend(self, items: Iterable[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        else:
            _require(isinstance(target, Placeholder), "items for what is no list")

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_many(self, _: Any) -> None:
        items = self._since_mark()
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update((_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True))
        else:
            _require(isinstance(target, Placeholder), "items for what is no dictionary")

    def _discard(self, _: Any) -> None:
        """Drop a set's items (ADDITEMS)."""
        self._since_mark()

    def _build(self, _: Any) -> None:
        # The state of an object, such as the attributes that old state dicts have beside their items.
        self._stack.pop()

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_checked_global(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        _require(isinstance(name, str) and isinstance(module, str), "a class without a name")
        self._stack.append(_checked_global(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        _require(isinstance(arguments, tuple), "a call without arguments")
        known = _FUNCTIONS.get(function) if isinstance(function, Global) else None
        self._stack.append(Placeholder() if known is None else known(*arguments))

    def _new_object(self, _: Any) -> None:
        del self._stack[-2:]
        self._stack.append(Placeholder())

    def _new_object_with_keywords(self, _: Any) -> None:
        del self._stack[-3:]
        self._stack.append(Placeholder())

    def _instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        _checked_global(module, name)
        self._object(None)

    def _object(self, _: Any) -> None:
        self._since_mark()
        self._stack.append(Placeholder())

    def _persistent(self, _: Any) -> None:
        pid = self._stack.pop()
        _require(isinstance(pid, tuple) and len(pid) >= 2, "a persistent id of an unknown kind")
        kind = pid[0].decode("ascii", "replace") if isinstance(pid[0], bytes) else pid[0]
        # The other kind is ("module", class, its file, its source): a class, which is not needed.
        self._stack.append(self._storage(*pid[1:]) if _is_text(kind) and kind == "storage" else Placeholder())

    def _storage(
        self, kind: object, key: object, _device: object, elements: object, view: object = None
    ) -> StorageReference | Placeholder:
        dtype = _storage_dtype(kind)
        if dtype is None:
            return Placeholder()
        _require(view is None, "a view of a storage")
        if not (_is_text(key) and _is_size(elements)):
            raise pickle.UnpicklingError("a storage without a key or a size")
        storage = StorageReference(key, dtype, elements)
        _require(
            self.storages.setdefault(key, storage) == storage,
            f"storage {key[:80]!r} is described in two ways",
        )
        return storage


_PUSHES_ARGUMENT = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": Placeholder,
}  # fmt: skip
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_IGNORED = {"PROTO", "FRAME"}
_OPERATIONS: dict[str, Callable[[RestrictedUnpickler, Any], None]] = {
    "MARK": RestrictedUnpickler._mark,
    "POP": RestrictedUnpickler._pop,
    "POP_MARK": RestrictedUnpickler._discard,
    "DUP": lambda unpickler, _: unpickler._stack.append(unpickler._stack[-1]),
    "TUPLE": RestrictedUnpickler._tuple,
    "TUPLE1": lambda unpickler, _: unpickler._tuple_of(1),
    "TUPLE2": lambda unpickler, _: unpickler._tuple_of(2),
    "TUPLE3": lambda unpickler, _: unpickler._tuple_of(3),
    "LIST": RestrictedUnpickler._list,
    "DICT": RestrictedUnpickler._dict,
    "APPEND": RestrictedUnpickler._append,
    "APPENDS": RestrictedUnpickler._appends,
    "SETITEM": RestrictedUnpickler._set_item,
    "SETITEMS": RestrictedUnpickler._set_many,
    "ADDITEMS": RestrictedUnpickler._discard,
    "FROZENSET": RestrictedUnpickler._object,
    "BUILD": RestrictedUnpickler._build,
    "GLOBAL": RestrictedUnpickler._global,
    "STACK_GLOBAL": RestrictedUnpickler._stack_global,
    "REDUCE": RestrictedUnpickler._reduce,
    "NEWOBJ": RestrictedUnpickler._new_object,
    "NEWOBJ_EX": RestrictedUnpickler._new_object_with_keywords,
    "INST": RestrictedUnpickler._instance,
    "OBJ": RestrictedUnpickler._object,
    "BINPERSID": RestrictedUnpickler._persistent,
}


def _checked_global(module: str, name: str) -> Global:
    """Return the name; CodeRequestedError if it belongs to a module that can run code."""
    inert = module in _BUILTINS and name in _INERT_BUILTINS
    if module.split(".")[0] in _CODE_RUNNING_MODULES and not inert:
        raise CodeRequestedError(f"{module}.{name}"[:200])
    return Global(module, name)


def _key(key: object) -> object:
    """Return a dictionary's key, or a placeholder for one whose hash could take long."""
    return key if key is None or isinstance(key, str | bytes | int | float) else Placeholder()


def _storage_dtype(kind: object) -> torch.dtype | None:
    if isinstance(kind, Global) and kind.module in ("torch", "torch.cuda"):
        return _DTYPES.get(kind.name)
    return None


def _ordered_dict(*arguments: object) -> dict[Any, Any]:
    """Build an OrderedDict from nothing or, as Python 2 pickled it, from a list of pairs."""
    (pairs,) = arguments or ([],)
    _require(isinstance(pairs, list | tuple), "a dictionary of what is no list")
    assert isinstance(pairs, list | tuple)
    _require(all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs), "a dictionary of no pairs")
    return {_key(key): value for key, value in pairs}


def _describe_tensor(
    storage: object, offset: object, size: object, stride: object, *_: object
) -> TensorReference | Placeholder:
    if not isinstance(storage, StorageReference):
        return Placeholder()
    if not (_is_size(offset) and _are_sizes(size) and _are_sizes(stride) and len(size) == len(stride)):
        raise pickle.UnpicklingError(
            f"a tensor of size and stride that are not whole numbers, or of more than {MAX_AXES} axes"
        )
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.elements or (0 not in size and last >= storage.elements):
        raise pickle.UnpicklingError(
            f"a tensor of size {size} reaches beyond its storage of {storage.elements}"
        )
    return TensorReference(storage, offset, size, stride)


def _first(value: object, *_: object) -> object:
    return value


_FUNCTIONS: dict[Global, Callable[..., object]] = {
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch", "Size"): _first,
    Global("torch._utils", "_rebuild_tensor"): _describe_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _describe_tensor,
    Global("torch._utils", "_rebuild_parameter"): _first,
}
"""The only functions that a pickle can call, and what is called instead."""


def _is_text(value: object) -> TypeGuard[str]:
    return type(value) is str


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 48


def _are_sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    return type(values) is tuple and len(values) <= MAX_AXES and all(_is_size(value) for value in values)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(otherwise)
