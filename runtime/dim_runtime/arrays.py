"""Arrays that a matting takes (ndarray, memory-mapped file, zarr, reader): their checks and their memory."""

from __future__ import annotations

import math
import mmap
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import dim.trimap
from dim.errors import InputError

BAND_BYTES = 4 << 20
"""Bytes of a memory-mapped file that are read or written at once. The system maps more around each page."""

SHARING_WORK = 10_000
"""Candidate solutions that numpy tries to decide whether two arrays overlap; a few milliseconds."""


class Sliceable(Protocol):
    """An array that is read by slices, as a numpy array is."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


class Writable(Sliceable, Protocol):
    """An array that is read and written by slices."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


def as_array(value: Any, noun: str) -> Any:
    """Return what a matting works on: the value itself if it is read by slices, or else its numpy array.

    PIL images, tensors of other libraries in the computer's memory, and all else that has ``__array__`` or
    ``__array_interface__`` become arrays. Lists do not: their dtype would be a guess.

    Args:
        value: whatever the caller passed.
        noun: "image" or "trimap", for errors.

    Raises:
        InputError: the conversion failed, or a PIL image of a mode that does not fit.
    """
    if _is_array(value) and _dtype(value) is not None:
        return value
    if not any(hasattr(value, name) for name in ("__array__", "__array_interface__")):
        return value
    _require_mode(value, noun)
    try:
        return np.asarray(value)
    except Exception as error:  # code of the caller's library
        raise InputError(
            f"cannot use this {noun}",
            got=f"{type(value).__module__}.{type(value).__name__}",
            expected="a numpy array, or what converts to one",
            why=str(error)[:300],
            fix="move it to the computer's memory and convert it, as tensor.detach().cpu().numpy()",
        ) from error


def _require_mode(value: Any, noun: str) -> None:
    """Raise InputError for a PIL image whose numbers are no levels of the channels that are needed."""
    if not type(value).__module__.startswith("PIL."):
        return
    mode, fitting = value.mode, "RGB" if noun == "image" else "L"
    if mode != fitting:
        raise InputError(
            f"cannot use this {noun}",
            got=f"a PIL image of mode {mode}",
            expected=f"mode {fitting}",
            fix=f"{noun}.convert({fitting!r})",
        )


def require_trimap(trimap: Any) -> None:
    """Raise InputError unless the trimap is uint8 H, W with at least one pixel."""
    if isinstance(trimap, np.ndarray) or not _is_array(trimap):
        _require_numpy("trimap", trimap, "uint8 H, W")
        if trimap.ndim == 3:
            raise InputError(
                "cannot use this trimap",
                got=f"{trimap.dtype} with shape {trimap.shape}",
                expected="uint8 H, W: 0 background, 128 unknown, 255 foreground",
                fix="one image at a time: matting(image[0], trimap[0]); Matting.map takes many"
                if trimap.shape[2] > 4
                else "matting(image, trimap): the image first; take one channel of a trimap that has several",
            )
        if trimap.dtype.kind == "b":
            raise _boolean_mask(trimap)
        dim.trimap.validate(trimap)
    elif _dtype(trimap) != np.uint8 or len(trimap.shape) != 2 or 0 in trimap.shape:
        raise InputError(
            "cannot use this trimap",
            got=f"{trimap.dtype} with shape {trimap.shape}",
            expected="uint8 H, W: 0 background, 128 unknown, 255 foreground",
        )


def _boolean_mask(mask: Any) -> InputError:
    return InputError(
        "cannot use this trimap",
        got=f"bool with shape {mask.shape}: a mask",
        expected="uint8 H, W: 0 background, 128 unknown, 255 foreground",
        why="a mask has no unknown region, and only there an alpha is computed",
        fix="dim_runtime.trimaps.bands.from_soft_mask(mask.astype('uint8') * 255) makes a trimap of it",
    )


def require_pair(image: Any, trimap: Any) -> None:
    """Raise InputError unless the image is uint8 or uint16 H, W, 3 and the trimap uint8 H, W of its size."""
    require_trimap(trimap)
    _require_numpy("image", image, "uint8 or uint16 H, W, 3, RGB")
    shape = tuple(image.shape)
    if _dtype(image) not in (np.uint8, np.uint16) or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(
            "cannot use this image",
            got=f"{image.dtype} with shape {shape}",
            expected="uint8 or uint16 H, W, 3, RGB",
            fix=_image_fix(image, _dtype(image), shape),
        )
    _require_same_size(image, trimap)


def require_out(out: Any, trimap: Sliceable) -> None:
    """Raise InputError unless the output is writable and floating point of the trimap's shape."""
    fits = _is_array(out) and hasattr(out, "__setitem__") and tuple(out.shape) == tuple(trimap.shape)
    if not fits or _dtype(out) not in (np.float16, np.float32, np.float64):
        got = f"{out.dtype} with shape {out.shape}" if _is_array(out) else type(out).__name__
        raise InputError(
            "cannot write the alpha into this array",
            got=got,
            expected=f"float16, float32 or float64 with shape {tuple(trimap.shape)}, writable by slices",
        )
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise InputError("cannot write the alpha into this array", got="a read-only array")


def require_separate(out: Any, **inputs: Any) -> None:
    """Raise InputError if the output shares memory with an input, which would change while it is read.

    Args:
        out: the output.
        inputs: image and trimap by their nouns; only numpy arrays are compared.
    """
    for noun, array in inputs.items():
        if isinstance(out, np.ndarray) and isinstance(array, np.ndarray) and _share_memory(out, array):
            raise InputError(
                "cannot write the alpha into this array",
                got=f"memory that it shares with the {noun}",
                expected="an array with its own memory",
                why=f"the {noun} would change while it is read",
            )


def _share_memory(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Return whether an element lies in both arrays; True if that cannot be decided with little work."""
    if not np.may_share_memory(first, second):
        return False
    try:
        # numpy's stubs know the two special values only.
        return np.shares_memory(first, second, max_work=SHARING_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _require_numpy(what: str, array: Any, expected: str) -> None:
    if _is_array(array):
        return
    kind = type(array)
    if isinstance(array, str | bytes) or hasattr(array, "__fspath__"):
        fix = "read the file: dim.images.read_image(path), dim.images.read_trimap(path)"
    else:
        fix = f"numpy.asarray({what}, dtype='uint8')"
    raise InputError(
        f"cannot use this {what}",
        got=kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}",
        expected=f"a numpy array, {expected}",
        fix=fix,
    )


def _image_fix(image: Any, dtype: np.dtype[Any] | None, shape: tuple[int, ...]) -> str:
    """Return how an array becomes an image: the most probable cause of its being refused comes first."""
    if dtype is not None and dtype.kind == "b":
        return "image.astype('uint8') * 255"
    if dtype is not None and dtype.kind == "f":
        return _float_fix(image)
    if dtype is not None and dtype.newbyteorder("=") in (np.uint8, np.uint16) and dtype.byteorder == ">":
        return "convert the byte order: image.astype(image.dtype.newbyteorder('='))"
    if dtype is not None and dtype.kind in "iu" and dtype.itemsize > 1 and dtype != np.uint16:
        return "for levels from 0 to 255: image.astype('uint8')"
    if len(shape) == 3 and shape[0] == 3:
        return "move the channels to the end: numpy.moveaxis(image, 0, -1)"
    if len(shape) == 4 and shape[0] == 1:
        return "remove the batch axis: image[0]"
    if len(shape) == 3 and shape[2] == 4:
        return "drop the fourth channel: image[..., :3]"
    return "repeat a gray channel three times: numpy.stack([gray] * 3, axis=-1)"


def _float_fix(image: Any) -> str:
    """Return how floating-point values become levels, by their range where all of them are in memory."""
    largest = float(image.max(initial=0)) if isinstance(image, np.ndarray) else None
    unit = "(image.clip(0, 1) * 255).round().astype('uint8')"
    if largest is None or not math.isfinite(largest):
        return f"for finite values in [0, 1]: {unit}"
    if largest <= 1:
        return unit
    if largest <= 255:
        return "image.clip(0, 255).round().astype('uint8')"
    return "scale the values to [0, 255] and convert them to uint8, or to [0, 65535] and uint16"


def _require_same_size(image: Sliceable, trimap: Sliceable) -> None:
    (height, width), (rows, columns) = image.shape[:2], trimap.shape
    if (height, width) == (rows, columns):
        return
    turned = (height, width) == (columns, rows)
    fix = "make the trimap from this image, or resize it with nearest-neighbour interpolation"
    if turned:
        fix = "turn one of them: an EXIF orientation may have been applied to the image and not to the trimap"
    raise InputError(
        "image and trimap differ in size",
        got=f"image of {width}×{height} px, trimap of {columns}×{rows} px",
        expected="the same size",
        fix=fix,
    )


def _is_array(array: Any) -> bool:
    return all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__"))


def _dtype(array: Any) -> np.dtype[Any] | None:
    """Return the dtype; None for a type of another library, which numpy does not know."""
    try:
        known: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:
        return None
    return known


class MappedWindows:
    """A memory-mapped array that returns copies and releases the pages to the system after each.

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
    """Return the array as :class:`MappedWindows` if it is a shared memory-mapped file, else unchanged."""
    file = _shared_file(array)
    return array if file is None else MappedWindows(array, file)


def held_bytes(array: Any) -> int:
    """Return the bytes that working on this array adds to the process, beyond what is resident already.

    These are pages of a memory-mapped file that cannot be released, or the buffers of a reader
    (``buffer_bytes``).
    """
    if isinstance(array, MappedWindows):
        # One band, and what the system maps in around it.
        return 2 * BAND_BYTES
    if isinstance(array, np.memmap):
        return array.nbytes
    return int(getattr(array, "buffer_bytes", 0))


def _shared_file(array: Any) -> mmap.mmap | None:
    """Return the file below an array; None without one, or if its changes are private to this process."""
    mode = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            mode = array.mode
        array = array.base
    # A private page that is released loses what was written to it. Windows has no madvise.
    shared = mode in ("r", "r+", "w+") and hasattr(mmap, "MADV_DONTNEED")
    return array if shared and isinstance(array, mmap.mmap) else None
