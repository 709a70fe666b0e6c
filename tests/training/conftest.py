"""Fixtures of the training tests: loader processes are spawned, because other tests start threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def spawned_loaders() -> Iterator[None]:
    """Spawn processes: a fork of a process in which OpenVINO has run sometimes crashes."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)
