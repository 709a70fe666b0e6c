"""The queue of jobs: what is dropped leaves nothing behind, whether it waited or ran."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from dim_runtime.serve.jobs import Job, JobQueue, Phase, State
from dim_runtime.serve.limits import BusyError, Limits, RemovedJobError, TimeLimitError


class Held:
    """Work that a test holds in the only worker until it sets ``leave``."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> None:
        self.entered.set()
        assert self.leave.wait(30)


@pytest.fixture
def held() -> Iterator[Held]:
    work = Held()
    yield work
    work.leave.set()


@pytest.fixture
def queue(held: Held) -> Iterator[JobQueue]:
    """Return a queue of one worker and two waiting jobs; ``held`` is with the worker."""
    with JobQueue(Limits(workers=1, queue=2), lambda seconds: None) as made:
        made.submit(made.new_folder(), held)
        assert held.entered.wait(30)
        yield made
        held.leave.set()


def never(job: Job) -> None:
    raise AssertionError("a job that was dropped must not run")


def test_jobs_that_waited_too_long_free_the_queue(queue: JobQueue, held: Held) -> None:
    (running,) = queue._jobs.values()
    waiting = [queue.submit(queue.new_folder(), never) for _ in range(2)]
    with pytest.raises(BusyError):
        queue.require_room()
    for job in (*waiting, running):
        job.deadline = 0.0
        with pytest.raises(TimeLimitError):
            asyncio.run(queue.wait(job))
    queue.require_room()
    assert (queue.waiting, queue.unfinished, queue.kept) == (0, 1, 1), "the one that runs"
    assert not any(job.folder.exists() for job in waiting)
    held.leave.set()
    queue._pool.shutdown(wait=True)
    # A stopping server waits for these two to become 0.
    assert (queue.unfinished, queue.kept) == (0, 0)
    assert not running.folder.exists()


def test_a_job_that_is_dropped_while_it_waits_ends_the_requests_for_it(queue: JobQueue) -> None:
    job = queue.submit(queue.new_folder(), never)

    async def dropped_meanwhile() -> None:
        waiting = asyncio.create_task(queue.wait(job))
        await asyncio.sleep(0)
        queue.drop(job)
        await waiting

    with pytest.raises(RemovedJobError):
        asyncio.run(dropped_meanwhile())
    with pytest.raises(RemovedJobError):
        asyncio.run(queue.wait(job))
    assert (job.state, queue.find(job.id)) == (State.FAILED, None)


def test_a_job_that_runs_ends_at_its_next_progress_after_it_was_dropped() -> None:
    held, ended = Held(), threading.Event()

    def work(job: Job) -> None:
        job.begin(Phase.MATTE)
        held(job)
        try:
            job.progress(1, 3)
        finally:
            ended.set()

    with JobQueue(Limits(workers=1), lambda seconds: None) as queue:
        job = queue.submit(queue.new_folder(), work)
        assert held.entered.wait(30)
        queue.drop(job)
        held.leave.set()
        assert ended.wait(30)
    assert isinstance(job.error, RemovedJobError)
    assert not job.folder.exists()


def test_a_job_that_nobody_waits_for_ends_when_its_time_is_over() -> None:
    def work(job: Job) -> None:
        job.begin(Phase.MATTE)
        job.deadline = 0.0
        job.progress(1, 3)

    with JobQueue(Limits(workers=1), lambda seconds: None) as queue:
        job = queue.submit(queue.new_folder(), work)
    assert isinstance(job.error, TimeLimitError)
    assert "1 of 3 in the phase matte" in str(job.error)


def test_a_request_that_is_cancelled_leaves_the_job(queue: JobQueue) -> None:
    job = queue.submit(queue.new_folder(), lambda job: None)

    async def cancelled() -> None:
        waiting = asyncio.create_task(queue.wait(job))
        await asyncio.sleep(0)
        waiting.cancel()
        await waiting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert queue.find(job.id) is job


def test_a_job_that_is_over_has_its_result_after_its_deadline() -> None:
    with JobQueue(Limits(workers=1), lambda seconds: None) as queue:
        job = queue.submit(queue.new_folder(), lambda job: None)
        asyncio.run(queue.wait(job))
        job.deadline = 0.0
        asyncio.run(queue.wait(job))
        assert (job.state, queue.find(job.id)) == (State.DONE, job)


def test_a_job_that_is_dropped_in_its_last_step_has_no_result() -> None:
    held = Held()
    with JobQueue(Limits(workers=1), lambda seconds: None) as queue:
        job = queue.submit(queue.new_folder(), held)
        assert held.entered.wait(30)
        queue.drop(job)
        held.leave.set()
    assert job.state is State.FAILED
    assert isinstance(job.error, RemovedJobError)


def test_a_job_that_was_removed_leaves_the_next_one_of_its_identity_alone(queue: JobQueue) -> None:
    first = queue.submit(queue.new_folder(), never, "a" * 32)
    queue.drop(first)
    second = queue.submit(queue.new_folder(), never, "a" * 32)
    # As the last request for the first job does when its response has been sent.
    queue.drop(first)
    assert queue.find("a" * 32) is second
    with pytest.raises(RemovedJobError):
        asyncio.run(queue.wait(first))
    assert queue.find("a" * 32) is second
    assert second.folder.exists()
    queue.drop(second)
