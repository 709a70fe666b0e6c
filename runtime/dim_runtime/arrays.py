"""What images, trimaps and outputs have in common, be they numpy arrays, memory-mapped files or zarr."""

from __future__ import annotations

from typing import Any, Protocol


class Sliceable(Protocol):
    """Anything that reads like a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


class Writable(Sliceable, Protocol):
    """Anything that reads and writes like a numpy array."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...
