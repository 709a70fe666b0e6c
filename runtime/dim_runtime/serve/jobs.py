"""Jobs of the server: a bounded queue in front of a few threads that own the network.

Each job has its own folder of files; what is kept in memory does not grow with the number of jobs.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from dim.errors import InputError
from dim_runtime.serve.folders import ServerFolder
from dim_runtime.serve.limits import BusyError, Limits, RemovedJobError, TimeLimitError, stopping_error

TIME_FIX = "send a smaller image, or start the server with a larger --job-seconds"
TYPICAL_SECONDS = 2.0
"""Assumed time of a job before the first one was measured."""


class State(StrEnum):
    """State of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Phase(StrEnum):
    """What a running job does; its progress starts again in each phase."""

    TRIMAP = "trimap"
    MATTE = "matte"
    OUTPUTS = "outputs"


@dataclass
class Job:
    """One request for a matte.

    Attributes:
        id: hexadecimal, not guessable.
        folder: its files.
        work: what a worker calls with the job. It must call :meth:`begin` and :meth:`progress` now and then,
            because only there can a job end early.
        deadline: when it must be over, by the clock of :func:`time.monotonic`.
        phase: what it does; None until it runs.
        finished, total: progress within the phase: windows of the network, or outputs.
        fetched: outputs that were sent.
        warnings: about what the request holds, to be sent with its outputs.
        dropped: whether no client waits for the job: it ends at its next report of progress.
        future: of the worker that runs it.
    """

    id: str
    folder: Path
    work: Callable[[Job], None]
    deadline: float
    state: State = State.WAITING
    phase: Phase | None = None
    finished: int = 0
    total: int = 0
    error: Exception | None = None
    accepted: float = field(default_factory=time.monotonic)
    ended: float | None = None
    fetched: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    dropped: bool = False
    future: Future[None] = field(default_factory=Future, repr=False)

    def begin(self, phase: Phase) -> None:
        """Note the next phase; errors as in :meth:`progress`."""
        self.phase = phase
        self.progress(0, 0)

    def progress(self, finished: int, total: int) -> None:
        """Note how much of the phase is finished.

        Raises:
            RemovedJobError: the job was dropped.
            TimeLimitError: its time is over.
        """
        self.finished, self.total = finished, total
        self.check()

    def check(self) -> None:
        """End the work of a job here if it was dropped or its time is over.

        Raises:
            RemovedJobError, TimeLimitError: as :meth:`progress`.
        """
        if self.dropped:
            raise removed()
        if time.monotonic() > self.deadline:
            raise TimeLimitError(
                "cannot make the matte in time",
                got=f"{self.finished} of {self.total} in the phase {self.phase}" if self.total else None,
                fix=TIME_FIX,
            )

    @property
    def over(self) -> bool:
        """Whether the job is done or has failed."""
        return self.state in (State.DONE, State.FAILED)


class JobQueue:
    """Run jobs in order, a few at once, and refuse what cannot wait.

    Args:
        limits: see :class:`~dim_runtime.serve.limits.Limits`.
        ended: called with the seconds from a job's acceptance to its end.
    """

    def __init__(self, limits: Limits, ended: Callable[[float], object]) -> None:
        self.limits, self._ended = limits, ended
        self._root: ServerFolder | None = None
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="dim-serve")
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._seconds = TYPICAL_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        with self._lock:
            return sum(job.state is State.WAITING for job in self._jobs.values())

    @property
    def unfinished(self) -> int:
        """Jobs that were accepted and are neither done nor failed."""
        with self._lock:
            return sum(not job.over for job in self._jobs.values())

    @property
    def kept(self) -> int:
        """Jobs whose files are still there."""
        with self._lock:
            return len(self._jobs)

    @property
    def fetchable(self) -> int:
        """Jobs that are done and whose results are still there."""
        with self._lock:
            return sum(job.state is State.DONE for job in self._jobs.values())

    @property
    def stopping(self) -> bool:
        """Whether new jobs are refused because the server stops."""
        return self._stopping

    def require_room(self) -> None:
        """Raise BusyError if a job could not wait now: before its body is read."""
        with self._lock:
            self._require_room()

    def submit(self, folder: Path, work: Callable[[Job], None], identity: str | None = None) -> Job:
        """Accept a job; ``folder`` is its own from now on, and ``identity`` its name, new if it is None.

        Raises:
            InputError: another job has this identity.
            BusyError: the queue is full.
            StoppingError: the server is stopping.
        """
        with self._lock:
            self._require_room()
            if identity in self._jobs:
                raise InputError(
                    "cannot use this identity", why="another job has it", fix="choose another at random"
                )
            job = Job(identity or uuid4().hex, folder, work, time.monotonic() + self.limits.job_seconds)
            self._jobs[job.id] = job
            job.future = self._pool.submit(self._run, job)
        return job

    def find(self, identity: str) -> Job | None:
        """Return the job of this identity; None if there is none, or no longer."""
        with self._lock:
            return self._jobs.get(identity)

    async def wait(self, job: Job) -> None:
        """Wait until a job is over; raise its error.

        Raises:
            TimeLimitError: it is not over in time; the job is then dropped.
            RemovedJobError: it was dropped before it ran.
        """
        with self._lock:
            if self._jobs.get(job.id) is not job:
                raise removed()
            future = job.future
        # A job that is over has its result, however late that is fetched.
        left = None if job.over else max(0.0, job.deadline - time.monotonic())
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), left)
        except TimeoutError as error:
            self.drop(job)
            raise TimeLimitError(
                "cannot make the matte in time",
                expected=f"{self.limits.job_seconds:g} s for waiting and computing",
                fix=TIME_FIX,
            ) from error
        except asyncio.CancelledError:
            # Either this request was cancelled, or another one dropped the job before it ran.
            if not future.cancelled():
                raise
            raise removed() from None
        if job.error is not None:
            raise job.error

    def new_folder(self) -> Path:
        """Make an empty folder for a job's files."""
        # With the first job: an application that is never started leaves nothing behind.
        with self._lock:
            if self._root is not None and not self._root.path.is_dir():
                # Systems remove from the temporary folder what was not used for days.
                self._root.close()
                self._root = None
            self._root = self._root or ServerFolder()
            return Path(tempfile.mkdtemp(dir=self._root.path))

    def drop(self, job: Job) -> None:
        """Forget a job and remove its files.

        A job that waits never runs; one that runs ends after its present window.
        """
        with self._lock:
            if not job.over and not self._cancel(job):
                job.dropped = True
                return
        self._remove(job)

    def drop_expired(self) -> None:
        """Drop jobs whose result was not fetched in time."""
        now = time.monotonic()
        with self._lock:
            expired = [
                job
                for job in self._jobs.values()
                if job.over and now - (job.ended or now) > self.limits.keep_seconds
            ]
        for job in expired:
            self._remove(job)

    def stop(self) -> None:
        """Take no more jobs; those accepted are finished."""
        self._stopping = True

    def close(self) -> None:
        """Finish what was accepted, then remove all files."""
        self.stop()
        self._pool.shutdown(wait=True)
        root, self._root = self._root, None
        if root is not None:
            root.close()

    def _require_room(self) -> None:
        if self._stopping:
            raise stopping_error()
        waiting = sum(job.state is State.WAITING for job in self._jobs.values())
        if waiting >= self.limits.queue:
            seconds = max(1, round(waiting * self._seconds / self.limits.workers))
            raise BusyError(
                "cannot take the request: the queue is full",
                why=f"requests that wait: {waiting}",
                retry_after=seconds,
            )

    def _cancel(self, job: Job) -> bool:
        """End a job that waits and return True, or return False; the caller holds the lock."""
        if not job.future.cancel():
            return False
        job.error, job.ended = removed(), time.monotonic()
        job.state = State.FAILED
        return True

    def _remove(self, job: Job) -> None:
        with self._lock:
            # A client may have given the identity of a job that was removed to another one.
            if self._jobs.get(job.id) is job:
                del self._jobs[job.id]
        shutil.rmtree(job.folder, ignore_errors=True)

    def _run(self, job: Job) -> None:
        started = time.monotonic()
        job.state = State.RUNNING
        try:
            if started > job.deadline:
                raise TimeLimitError("cannot make the matte in time", why="the request waited too long")
            job.work(job)
            with self._lock:
                # A request that drops the job after this finds it over, and removes its files.
                if job.dropped:
                    raise removed()
                job.finished, job.state = job.total, State.DONE
        except Exception as error:
            # The error becomes this request's response; the worker thread must survive it.
            job.error, job.state = error, State.FAILED
        finally:
            job.ended = time.monotonic()
            # A running mean: the time that Retry-After is computed from.
            self._seconds += 0.2 * (job.ended - started - self._seconds)
            self._ended(job.ended - job.accepted)
            with self._lock:
                dropped = job.dropped
            if dropped:
                self._remove(job)


def removed() -> RemovedJobError:
    """Return the error for a job that was dropped."""
    return RemovedJobError("cannot return the result of this job", why="the job was removed")
