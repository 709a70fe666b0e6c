"""Several processes that share one task: item i goes to process i mod N, and all of them get all results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""Time that a process waits for the slowest one; a launcher ends them all if one of them dies."""


@dataclass(frozen=True)
class Ranks:
    """This process among the others, as ``torchrun`` or ``accelerate launch`` put it into the environment.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
        local_rank, local_count: the same among those of this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def from_environment(cls) -> Self:
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without them, the process is alone."""
        rank, count = _number("RANK", 0), _number("WORLD_SIZE", 1)
        return cls(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is one process only."""
        return self.count == 1

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Join the other processes, over gloo, in the memory of the CPU; a single process does nothing."""
        if self.is_alone:
            yield
            return
        import torch.distributed as distributed

        distributed.init_process_group("gloo", timeout=_PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Return every N-th item, from this process's number on."""
        return items[self.rank :: self.count]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank, in every process; they must be picklable."""
        if self.is_alone:
            return [value]
        import torch.distributed as distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def gather_items(self, items: Sequence[T]) -> list[T]:
        """Return the items that :meth:`mine` split, in their original order, in every process."""
        parts = self.gather(list(items))
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """Run the block in the first process of each machine, then in the others."""
        if self.local_rank > 0:
            self.gather(None)
        yield
        if self.local_rank == 0:
            self.gather(None)


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
