"""Memory-mapped files read and written window by window, whose pages do not pile up in this process."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

BAND_BYTES = 4 << 20
"""What is mapped in at once. The system maps in more around each page that is touched."""


class MappedWindows:
    """A memory-mapped array that gives copies, and gives the pages back to the system after each.

    The pages stay in the system's cache, outside of this process's resident memory; what was written stays
    written.
    """

    def __init__(self, array: npt.NDArray[Any], file: mmap.mmap) -> None:
        self._array, self._file = array, file
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        part = np.asarray(self._array[key])
        copied = np.empty_like(part, order="C")
        for rows in self._bands(part):
            copied[rows] = part[rows]
            self._file.madvise(mmap.MADV_DONTNEED)
        return copied

    def __setitem__(self, key: Any, value: Any) -> None:
        part = np.asarray(self._array[key])
        whole = np.broadcast_to(value, part.shape)
        for rows in self._bands(part):
            part[rows] = whole[rows]
            self._file.madvise(mmap.MADV_DONTNEED)

    def _bands(self, part: npt.NDArray[Any]) -> list[slice]:
        step = max(BAND_BYTES // max(abs(part.strides[0]), 1), 1)
        return [slice(start, start + step) for start in range(0, len(part), step)]


def by_windows(array: Any) -> Any:
    """The array as :class:`MappedWindows` if it is a shared memory-mapped file; anything else as it is."""
    file = _shared_file(array)
    return array if file is None else MappedWindows(array, file)


def held_bytes(array: Any) -> int:
    """Bytes that working on this array adds to the process, beyond what is resident already.

    Pages of a memory-mapped file that cannot be given back; the buffers of a reader, if it tells them.
    """
    if isinstance(array, MappedWindows):
        # One band, and what the system maps in around it.
        return 2 * BAND_BYTES
    if isinstance(array, np.memmap):
        return array.nbytes
    return int(getattr(array, "buffer_bytes", 0))


def _shared_file(array: Any) -> mmap.mmap | None:
    """The file below an array; None if there is none, or if its changes are private to this process."""
    mode = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            mode = array.mode
        array = array.base
    # A private page that is given back loses what was written to it. Windows has no madvise.
    shared = mode in ("r", "r+", "w+") and hasattr(mmap, "MADV_DONTNEED")
    return array if shared and isinstance(array, mmap.mmap) else None
