"""Reading PyTorch's pickles without running anything that is in them.

Checkpoints of 2020 are legacy pickles whose ``meta`` may name classes of packages long gone. Here an
unpickler knows the handful of names that rebuild tensors; every other name becomes an inert
:class:`Placeholder`. Names that could only be there to run code make the file refused.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dim.errors import CheckpointError

_TENSOR_BUILDERS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
_PLAIN_BUILTINS = {"set": set, "frozenset": frozenset, "complex": complex, "slice": slice, "range": range}
_CODE_RUNNING_MODULES = {
    "asyncio", "builtins", "__builtin__", "code", "codeop", "commands", "ctypes", "importlib", "io", "multiprocessing",
    "nt", "os", "pathlib", "pdb", "pickle", "_pickle", "pip", "posix", "profile", "pty", "runpy", "shutil", "signal",
    "socket", "subprocess", "sys", "tempfile", "threading", "timeit", "urllib", "webbrowser", "zipimport",
}  # fmt: skip


class Placeholder:
    """Stands in for an object of an unknown class: takes whatever the pickle gives it and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def add(self, item: object) -> None: ...


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in _TENSOR_BUILDERS:
            return getattr(torch._utils, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return getattr(torch, name, None) or getattr(torch.storage, name)
        if module in ("builtins", "__builtin__") and name in _PLAIN_BUILTINS:
            return _PLAIN_BUILTINS[name]
        if module.split(".")[0] in _CODE_RUNNING_MODULES:
            raise _WantsToRunCode(f"{module}.{name}")
        return Placeholder


class _WantsToRunCode(Exception):
    """Carries the name that the pickle asked for."""


def _restricted_load(file: Any, **options: Any) -> Any:
    return _RestrictedUnpickler(file, **options).load()


_PICKLE_MODULE = SimpleNamespace(
    __name__="dim.unpickling", Unpickler=_RestrictedUnpickler, load=_restricted_load, UnpicklingError=pickle.UnpicklingError
)


def load(path: Path) -> Any:
    """The object in a PyTorch file, legacy or zip, with unknown classes as placeholders; tensors on the CPU.

    Raises:
        CheckpointError: not such a file, truncated, or it names something that runs code.
    """
    _refuse_other_containers(path)
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE_MODULE, weights_only=False)
    except _WantsToRunCode as error:
        raise CheckpointError(
            f"refused to read {path}: the file wants to run code",
            got=f"the pickle asks for {error}",
            expected="tensors and plain data",
            why="nothing in it was run",
            fix="do not use this file; get the checkpoint from its authors, as safetensors where they offer it",
        ) from None
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError,
            IndexError, OverflowError, ImportError, AssertionError, UnicodeDecodeError) as error:  # fmt: skip
        raise CheckpointError(
            f"cannot read {path}",
            got="a file that is not a PyTorch checkpoint, or a damaged one",
            why=f"{type(error).__name__}: {error}".splitlines()[0],
        ) from error


def _refuse_other_containers(path: Path) -> None:
    """TorchScript archives carry code, and the tar files of PyTorch 0.1 unpack to disk: neither is read."""
    kind = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                kind = "a TorchScript archive"
    elif tarfile.is_tarfile(path):
        kind = "a tar archive"
    if kind:
        raise CheckpointError(
            f"cannot read {path}",
            got=kind,
            expected="a state dict saved with torch.save, or safetensors",
            fix="load it where it was made and save its state_dict()",
        )
