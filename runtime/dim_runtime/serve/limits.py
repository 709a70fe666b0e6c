"""Limits of a request: settings with safe defaults, and the guard that counts bytes while they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from dim.errors import DimError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

STORAGE_SECONDS = 60
"""Seconds after which a request is repeated that found no space: results that are kept go in the meantime."""
LOOK_SECONDS = 0.5
"""Seconds between two looks whether the server stops, while a body arrives."""
CROWDED_SECONDS = 10
"""Seconds after which a request is repeated that met too many others."""


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        max_bytes: of a request's body.
        arriving_bytes: of all bodies together whose requests have no response yet; more get status 429.
        max_pixels: of an image.
        queue: jobs that may wait; more get status 429.
        workers: jobs that are worked on at once. The network uses all cores for one; the second worker reads
            and writes files meanwhile.
        body_seconds: time in which a request's body must arrive.
        job_seconds: time that a job may wait and run.
        keep_seconds: time for which a result that was not fetched is kept.
    """

    max_bytes: int = 256 * 10**6
    arriving_bytes: int = 1024 * 10**6
    max_pixels: int = 60 * 10**6
    queue: int = 32
    workers: int = 2
    body_seconds: float = 60.0
    job_seconds: float = 300.0
    keep_seconds: float = 300.0


class TooLargeError(DimError):
    """A request that is larger than the server's limits."""


class BusyError(DimError):
    """The queue is full, or the server is stopping."""

    def __init__(self, problem: str, *, why: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(problem, why=why, fix=f"try again after {retry_after} s")


class StoppingError(BusyError):
    """The server finishes what it accepted and takes nothing more."""


class StorageError(BusyError):
    """The server's temporary folder cannot be written: it is full, read-only, or gone."""


class CrowdedError(BusyError):
    """More bytes arrive at once than the server takes; the rest of the body is not read."""


class TimeLimitError(DimError):
    """A job that took longer than the server allows."""


class RemovedJobError(DimError):
    """A job that was dropped before its result was fetched."""


class UnknownJobError(DimError):
    """An identity that no job has, or no longer."""


class UnauthorisedError(DimError):
    """A request without the server's token."""


class UnknownHostError(DimError):
    """A request to a host name that is not the server's."""


class SlowBodyError(DimError):
    """A request's body that did not arrive in time."""


class BodyGuard:
    """ASGI middleware: refuse a request before its body is read, or while the body arrives.

    Args:
        app: the application that is guarded.
        limits: bytes and seconds of a body.
        admit: called with the connection's scope before anything is read; raises a DimError to refuse.
        stopping: whether the server stops, so that what has not arrived yet would be refused anyway.
        refuse: makes the response to an error.
    """

    def __init__(
        self,
        app: Application,
        *,
        limits: Limits,
        admit: Callable[[Message], None],
        stopping: Callable[[], bool],
        refuse: Callable[[BaseException], Application],
    ) -> None:
        self.app, self.limits, self.admit, self.refuse = app, limits, admit, refuse
        self.stopping = stopping
        self._arriving = _Arriving(limits.arriving_bytes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.admit(scope)
        except DimError as error:
            await self.refuse(error)(scope, receive, send)
            return
        body = _Body(receive, self.limits, self._arriving, self.stopping)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self._arriving.bytes -= body.bytes


class _Arriving:
    """Bytes of all bodies whose requests have no response yet: they are in memory or in temporary files."""

    def __init__(self, allowed: int) -> None:
        self.bytes, self.allowed = 0, allowed


class _Body:
    """Counts the bytes and the time of one body."""

    def __init__(
        self, receive: Receive, limits: Limits, arriving: _Arriving, stopping: Callable[[], bool]
    ) -> None:
        self._receive, self._limits, self._arriving, self._stopping = receive, limits, arriving, stopping
        self.bytes = 0
        self._deadline = time.monotonic() + limits.body_seconds
        self._complete = False

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            SlowBodyError, TooLargeError, CrowdedError: it is beyond a limit.
            StoppingError: the server stops before the body is complete.
        """
        if self._complete:
            # After the body only a disconnect can come, whenever the client goes away.
            return await self._receive()
        message = await self._next()
        self._count(len(message.get("body", b"")))
        self._complete = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        """Wait for a message, and look now and then whether the server stops."""
        part = asyncio.ensure_future(self._receive())
        try:
            while True:
                left = self._deadline - time.monotonic()
                await asyncio.wait({part}, timeout=max(0.0, min(left, LOOK_SECONDS)))
                if part.done():
                    return part.result()
                if self._stopping():
                    raise stopping_error()
                if left <= 0:
                    raise SlowBodyError(
                        "cannot read the request: it arrives too slowly",
                        expected=f"the whole body within {self._limits.body_seconds:g} s",
                    )
        finally:
            part.cancel()

    def _count(self, size: int) -> None:
        self.bytes += size
        self._arriving.bytes += size
        if self.bytes > self._limits.max_bytes:
            raise too_many_bytes("more", self._limits.max_bytes)
        if self._arriving.bytes > self._arriving.allowed:
            raise CrowdedError(
                "cannot take the request: too many others arrive at once",
                why=f"they have {self._arriving.allowed} bytes together",
                retry_after=CROWDED_SECONDS,
            )


def stopping_error() -> StoppingError:
    """Return the error for a request that a stopping server does not take."""
    return StoppingError("cannot take the request", why="the server is stopping", retry_after=10)


def too_many_bytes(got: object, allowed: int) -> TooLargeError:
    """Return the error for a body that is larger than allowed."""
    return TooLargeError(
        "cannot take the request: it is too large",
        got=f"{got} bytes",
        expected=f"at most {allowed} bytes",
        fix="send a smaller image, or start the server with a larger --max-bytes",
    )


def no_storage(error: OSError) -> StorageError:
    """Return the error for files of a request that could not be written."""
    return StorageError(
        "cannot store the files of this request",
        why=f"the server's temporary folder cannot be written: {error.strerror or type(error).__name__}",
        retry_after=STORAGE_SECONDS,
    )
