"""What all routes of the server share: the network, the queue, the counters, and who is admitted."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.background import BackgroundTask

from dim_runtime.matting import Matting
from dim_runtime.serve import work
from dim_runtime.serve.forms import Fields
from dim_runtime.serve.jobs import Job, JobQueue, removed
from dim_runtime.serve.limits import Limits, UnauthorisedError, UnknownHostError, too_many_bytes
from dim_runtime.trimaps.sources import NAMES, TrimapSources

WARNING_HEADER = "Dim-Warning"
"""Header of a response whose request was used, though something in it is probably a mistake."""
FORM_SOURCES = {name: NAMES[name] for name in ("trimap", "mask", "strokes", "box")}
"""Sources of a trimap that a form can carry, with the names of their fields."""
EXPIRY_SECONDS = 10.0
"""Seconds between two looks for results that were not fetched in time, at most."""
LEAVING_SECONDS = 0.01
"""Seconds in which a disconnect that has already come is noticed."""
CHUNK_BYTES = 1 << 18
"""Bytes of a result that are read at once."""

Task = Callable[[TrimapSources, Job], None]
"""The work of a job, with its sources."""


class Service:
    """The network, the queue and the counters that all routes share."""

    def __init__(self, matting: Matting, limits: Limits, token: str | None, hosts: list[str]) -> None:
        self.matting, self.limits, self.token, self._hosts = matting, limits, token, hosts
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dim_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dim_job_seconds",
            "Seconds from a job's acceptance to its end.",
            registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )
        self.queue = JobQueue(limits, self.seconds.observe)
        self._header_readers = asyncio.Semaphore(limits.workers)
        waiting = Gauge("dim_jobs_waiting", "Jobs that wait.", registry=self.registry)
        waiting.set_function(lambda: self.queue.waiting)
        unfinished = Gauge("dim_jobs_unfinished", "Jobs that wait or run.", registry=self.registry)
        unfinished.set_function(lambda: self.queue.unfinished)

    def admit(self, scope: Mapping[str, Any]) -> None:
        """Raise before a body is read: another host, a wrong token, an announced size, a full queue."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._require_host(headers.get("host", ""))
        if not scope["path"].startswith(("/v1/", "/metrics")):
            return
        self._require_token(headers.get("authorization", ""))
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self.limits.max_bytes:
            raise too_many_bytes(announced, self.limits.max_bytes)
        if scope["method"] == "POST":
            self.queue.require_room()

    def _require_host(self, header: str) -> None:
        """Require an address, or a name of this server. Starlette's middleware does not know [::1]."""
        # The port follows the last colon; the colons of an IPv6 address are in brackets.
        name = re.sub(r":\d*$", "", header).lower()
        # Probes of a cluster and of a container name an address.
        if _is_address(name):
            return
        if not any(fnmatchcase(name, pattern) for pattern in self._hosts):
            raise UnknownHostError(
                "cannot take a request to this host name",
                got=name[:100],
                expected="a name of this server",
                fix="start the server with --allow-host NAME; worker processes: DIM_SERVE_HOSTS=NAME",
            )

    def _require_token(self, header: str) -> None:
        if self.token is None:
            return
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self.token.encode()):
            raise UnauthorisedError("cannot take the request", expected="Authorization: Bearer TOKEN")

    async def accept(
        self, image: UploadFile | None, fields: Fields, task: Task, identity: str | None = None
    ) -> Job:
        """Store the uploads in a new folder and queue the task; after an error nothing is left."""
        folder = self.queue.new_folder()
        try:
            sources = TrimapSources(
                image=await _stored(image, folder / "image"),
                trimap=await _stored(fields.trimap, folder / "trimap"),
                mask=await _stored(fields.mask, folder / "mask"),
                strokes=await _stored(fields.scribbles, folder / "scribbles"),
                box=fields.box,
                inside=fields.inside,
                outside=fields.outside,
                band=fields.band,
                max_pixels=self.limits.max_pixels,
            )
            sources.require_one(FORM_SOURCES)
            # Headers are read before a job waits; they get no more threads than jobs do.
            async with self._header_readers:
                await run_in_threadpool(work.require_small, sources)
            job = self.queue.submit(folder, partial(task, sources), identity)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    async def drop_expired(self) -> None:
        """Drop results that were not fetched in time, again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(min(self.limits.keep_seconds, EXPIRY_SECONDS))
            await run_in_threadpool(self.queue.drop_expired)

    async def finished(self, job: Job) -> None:
        """Wait for a job; drop it and raise its error if it failed."""
        try:
            await self.queue.wait(job)
        except Exception:
            self.queue.drop(job)
            raise

    async def finished_for(self, request: Request, job: Job) -> None:
        """Wait like :meth:`finished`, and drop the job if the request's client goes away before."""
        waiting = asyncio.create_task(self.finished(job))
        # The body was read: only a disconnect can come.
        leaving = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await run_in_threadpool(self.queue.drop, job)
            await waiting
        finally:
            leaving.cancel()

    async def drop_if_left(self, request: Request, job: Job) -> None:
        """Drop a job whose client has gone away before it got the job's identity."""
        leaving = asyncio.ensure_future(request.receive())
        done, _ = await asyncio.wait((leaving,), timeout=LEAVING_SECONDS)
        leaving.cancel()
        if done:
            await run_in_threadpool(self.queue.drop, job)

    def file(self, job: Job, name: str, kind: str, *, last: bool = True) -> StreamingResponse:
        """Return the response with a job's output; after the last one the job is dropped.

        An output is fetched when all of it was sent: a client whose connection breaks can try again.

        Raises:
            RemovedJobError: another request has dropped the job.
        """
        # Opened here: another request may remove the file before this response is sent.
        try:
            file = work.output_file(job.folder, name, kind).open("rb")
        except FileNotFoundError as error:
            raise removed() from error
        headers = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        if job.warnings:
            headers[WARNING_HEADER] = "; ".join(job.warnings)
        background = BackgroundTask(self.queue.drop if last else self.drop_fetched, job)
        return StreamingResponse(
            _chunks(file, partial(job.fetched.add, name)),
            headers=headers,
            media_type=work.MEDIA_TYPES[kind],
            background=background,
        )

    def drop_fetched(self, job: Job) -> None:
        """Drop a job when both outputs were sent: not before, because they may be fetched at one time."""
        if job.fetched >= {"alpha", "cutout"}:
            self.queue.drop(job)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


async def _stored(upload: UploadFile | None, path: Path) -> Path | None:
    if upload is None:
        return None
    await run_in_threadpool(_store, upload, path)
    return path


def _store(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)


def _chunks(file: BinaryIO, sent: Callable[[], object]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    sent()
