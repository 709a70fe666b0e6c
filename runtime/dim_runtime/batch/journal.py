"""What a batch has done so far, kept beside its outputs: so that it can be resumed, and never mixed up.

Lines of JSON. ``made`` says how the outputs are made (see :func:`dim_runtime.batch.run.fingerprint`);
``claimed`` lists outputs that this batch is going to write, before the first of them exists; ``done`` is one
that is complete, with the identity of its inputs. A file that exists and was never claimed belongs to
somebody else.
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

from dim.errors import InputError
from dim_runtime.batch import storage

NAME = ".dim-batch"
PART_ITEMS, PART_SECONDS = 200, 20.0
"""An object store has no appending: lines are put there in parts of this size or age. What a broken run had
not put yet is done again."""

Fingerprint = dict[str, Any]


class Journal:
    """The journal of one output folder; one process writes it at a time.

    Args:
        folder: local folder, which is made, or a name with a scheme.
        fingerprint: how the outputs of this batch are made; values of JSON.
        overwrite: start anew if the folder holds outputs that were made in another way.

    Raises:
        InputError: made in another way, or another process works in this folder.
    """

    def __init__(self, folder: str, fingerprint: Fingerprint, *, overwrite: bool = False) -> None:
        self.done: dict[str, str] = {}
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
            # Claims stay: what was written in another way is still ours to replace.
            self.done.clear()
        elif found is not None and found != fingerprint:
            raise _mixed(folder, found, fingerprint)
        # Written with the first claim: a batch that is refused leaves nothing behind.
        self._header: dict[str, Any] | None = {"made": fingerprint} if overwrite or found is None else None

    def _read(self) -> Fingerprint | None:
        made: Fingerprint | None = None
        for line in self._log.lines():
            if "made" in line:
                made = line["made"]
                self.done.clear()
            self.claimed.update(line.get("claimed", ()))
            if "done" in line:
                self.done[line["done"]] = line["inputs"]
        return made

    def claim(self, outputs: Iterable[str]) -> None:
        """These outputs are about to be written by this batch; called before the first of them is."""
        new = sorted(set(outputs) - self.claimed)
        if self._header is not None:
            self._log.append(self._header)
            self._header = None
        if new:
            self._log.append({"claimed": new})
            self._log.flush()
            self.claimed.update(new)

    def finish(self, output: str, inputs: str) -> None:
        """This output is complete."""
        self.done[output] = inputs
        self._log.append({"done": output, "inputs": inputs})

    def close(self) -> None:
        """Write what is not written yet and let others use the folder."""
        self._log.close()


def _mixed(folder: str, found: Fingerprint, wanted: Fingerprint) -> InputError:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return InputError(
        f"cannot resume the batch in {folder}: its outputs were made in another way",
        got=", ".join(f"{name}={_short(wanted.get(name))}" for name in names),
        expected=", ".join(f"{name}={_short(found.get(name))}" for name in names),
        fix="the same options as before, another output folder, or --overwrite to make all of them again",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"


class Log(Protocol):
    """Where the lines are kept."""

    def lines(self) -> Iterator[dict[str, Any]]: ...
    def append(self, line: dict[str, Any]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class LocalLog:
    """A file that is appended to line by line, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{NAME}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise InputError(f"cannot write into {folder}", why=error.strerror or str(error)) from error
        _lock(self._file.fileno(), folder)
        if self._path.read_bytes()[-1:] not in (b"", b"\n"):
            # The last line was cut off when its writer was killed.
            self._file.write(b"\n")

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from _parsed(self._path.read_bytes())

    def append(self, line: dict[str, Any]) -> None:
        self._file.write(_encoded(line))
        self.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        if self._path.stat().st_size == 0:
            self._path.unlink()


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
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _parsed(content: bytes) -> Iterator[dict[str, Any]]:
    for text in content.splitlines():
        # A line that was cut off says nothing; its item is done again.
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield line


if sys.platform == "win32":

    def _lock(descriptor: int, folder: Path) -> None:
        """Not on Windows: starting two batches in one folder is left to the user's care there."""

else:

    def _lock(descriptor: int, folder: Path) -> None:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"cannot start a batch in {folder}", got="another process that works there"
            ) from error
        except OSError:
            # A file system without locks.
            return
