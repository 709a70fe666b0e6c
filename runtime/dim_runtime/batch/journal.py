"""The journal of a batch, kept beside its outputs: it can be resumed, and two batches are never mixed.

Lines of JSON. ``made`` describes how the outputs are made (see :func:`dim_runtime.batch.run.fingerprint`);
``claimed`` lists outputs that this batch is about to write, before the first of them exists; ``done`` is one
that is complete, with the identity of its inputs and its size in bytes. A file that exists and was never
claimed is of other origin.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dim.documents import parse_json
from dim.errors import InputError
from dim.files import os_errors, require_writable
from dim_runtime.batch import storage

NAME = ".dim-batch"
PART_ITEMS, PART_SECONDS = 200, 20.0
"""Object stores cannot append: lines are stored in parts of at most so many lines or so many seconds. After
an interruption the items of a part that was not stored are done again."""

Fingerprint = dict[str, Any]


class Journal:
    """The journal of one output folder; one process writes it at a time.

    Args:
        folder: local folder, which is made, or a name with a scheme.
        fingerprint: how the outputs of this batch are made; values of JSON.
        overwrite: start again if the folder holds outputs that were made in another way.

    Raises:
        InputError: made in another way, or another process works in this folder.

    Attributes:
        done: identity of the inputs of each complete output.
        sizes: bytes of each complete output; none for a line without them.
        claimed: outputs that this batch has written or is about to write.
    """

    def __init__(self, folder: str, fingerprint: Fingerprint, *, overwrite: bool = False) -> None:
        self.done: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.claimed: set[str] = set()
        self._log: Log = RemoteLog(folder) if storage.is_remote(folder) else LocalLog(storage.local(folder))
        try:
            self._start(folder, json.loads(json.dumps(fingerprint)), overwrite)
        except BaseException:
            self._log.close()
            raise

    def _start(self, folder: str, fingerprint: Fingerprint, overwrite: bool) -> None:
        found = self._read()
        if overwrite:
            # Claims stay: outputs that were made in another way belong to this folder and may be replaced.
            self.done.clear()
        elif self.done and found != fingerprint:
            raise _mixed(folder, found or {}, fingerprint)
        # Written with the first claim: a batch that is refused leaves no journal.
        self._header: dict[str, Any] | None = None
        if overwrite or found != fingerprint:
            self._header = {"made": fingerprint}

    def _read(self) -> Fingerprint | None:
        made: Fingerprint | None = None
        for line in self._log.lines():
            # Fields of another type are no lines of ours: they are ignored, and their items done again.
            if isinstance(line.get("made"), dict):
                made = line["made"]
                self.done.clear()
            if isinstance(line.get("claimed"), list):
                self.claimed.update(name for name in line["claimed"] if isinstance(name, str))
            if isinstance(line.get("done"), str) and isinstance(line.get("inputs"), str):
                self._note(line["done"], line["inputs"], line.get("bytes"))
        return made

    def claim(self, outputs: Iterable[str]) -> None:
        """Record that this batch is about to write these outputs, before the first of them is written."""
        new = sorted(set(outputs) - self.claimed)
        if self._header is not None:
            self._log.append(self._header)
            self._header = None
        if new:
            self._log.append({"claimed": new})
            self._log.flush()
            self.claimed.update(new)

    def finish(self, output: str, inputs: str, size: int | None = None) -> None:
        """Record that this output, of ``size`` bytes, is complete."""
        self._note(output, inputs, size)
        self._log.append({"done": output, "inputs": inputs, "bytes": size})

    def _note(self, output: str, inputs: str, size: object) -> None:
        self.done[output] = inputs
        self.sizes.pop(output, None)
        if isinstance(size, int):
            self.sizes[output] = size

    def close(self) -> None:
        """Write the lines that wait and release the folder to other processes."""
        self._log.close()


def _mixed(folder: str, found: Fingerprint, wanted: Fingerprint) -> InputError:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return InputError(
        f"cannot resume the batch in {folder}: its outputs were made in another way",
        got=", ".join(f"{name}={_short(wanted.get(name))}" for name in names),
        expected=", ".join(f"{name}={_short(found.get(name))}" for name in names),
        fix="use the same options as before, another output folder, or --overwrite to make all again",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"


class Log(Protocol):
    """The place where lines are kept."""

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that are kept, in the order in which they were appended."""
        ...

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, which may wait to be kept."""
        ...

    def flush(self) -> None:
        """Keep the lines that wait."""
        ...

    def close(self) -> None:
        """Keep the lines that wait, and release the folder; without any line, no file stays."""
        ...


class LocalLog:
    """A file to which lines are appended, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{NAME}.jsonl"
        # Opening a pipe would wait for its other end.
        require_writable(self._path)
        with os_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
            self._file = self._path.open("ab")
            if self._path.read_bytes()[-1:] not in (b"", b"\n"):
                # The last line was cut off when its writer was killed.
                self._file.write(b"\n")

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from _parsed(self._path.read_bytes())

    def append(self, line: dict[str, Any]) -> None:
        with os_errors(self._path):
            self._file.write(_encoded(line))
            self._file.flush()

    def flush(self) -> None: ...

    def close(self) -> None:
        # Lines are flushed one by one; a full disk was reported then.
        with suppress(OSError):
            self._file.close()
        if self._path.stat().st_size == 0:
            self._path.unlink()
        if sys.platform == "win32":
            # Windows cannot remove an open file.
            self._lock.release()
        with suppress(OSError):
            # Elsewhere the file goes while the lock is held: a later process makes a new one.
            Path(self._lock.lock_file).unlink()
        self._lock.release()


class RemoteLog:
    """Objects under one prefix, each with some lines."""

    def __init__(self, folder: str) -> None:
        self._folder = storage.join(folder, NAME)
        self._waiting: list[bytes] = []
        self._since = time.monotonic()

    def lines(self) -> Iterator[dict[str, Any]]:
        for name in storage.names_in(self._folder):
            with storage.readable(name) as path:
                yield from _parsed(path.read_bytes())

    def append(self, line: dict[str, Any]) -> None:
        self._waiting.append(_encoded(line))
        if len(self._waiting) >= PART_ITEMS or time.monotonic() - self._since > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            # Sorted by name is sorted by time.
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            with storage.writable(storage.join(self._folder, name)) as path:
                path.write_bytes(b"".join(self._waiting))
        self._waiting, self._since = [], time.monotonic()

    def close(self) -> None:
        self.flush()


def _encoded(line: dict[str, Any]) -> bytes:
    # Escaped: file names of other encodings hold characters that UTF-8 has not.
    return json.dumps(line).encode() + b"\n"


def _parsed(content: bytes) -> Iterator[dict[str, Any]]:
    for text in content.splitlines():
        # A line that was cut off is ignored; its item is done again.
        with suppress(ValueError):
            line = parse_json(text)
            if isinstance(line, dict):
                yield line


def _locked(folder: Path) -> FileLock:
    """Lock a folder against other batches; InputError if another process has locked it."""
    lock = FileLock(folder / f"{NAME}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"cannot start a batch in {folder}",
            got="another process that works there",
            fix="wait until it ends, or use another output folder",
        ) from error
    except NotImplementedError:
        # The file system has no locks.
        pass
    return lock
