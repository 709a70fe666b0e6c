"""A batch: many items, computed with overlapping steps, resumable.

A result is written by renaming a finished file, then recorded in the :mod:`~dim_runtime.batch.journal`. A
batch that is killed at any moment and started again computes the items that are not recorded, and only those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dim import files
from dim.errors import InputError
from dim_runtime.backends.open import model_path
from dim_runtime.batch import storage
from dim_runtime.batch.items import Item, require_distinct
from dim_runtime.batch.journal import Fingerprint, Journal
from dim_runtime.errors import error_text
from dim_runtime.inference.stream import Job
from dim_runtime.matting import Matting
from dim_runtime.outputs.pair import Loaded, load, run_pair, save
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.outputs.stream_tiff import streams
from dim_runtime.planning.geometry import Plan
from dim_runtime.settings import MattingOptions

Status = Literal["done", "skipped", "failed"]
NO_EFFECT = ("model", "threads", "memory_limit", "cache")
"""Options that do not change an output; the model is compared by its content."""


@dataclass(frozen=True)
class ItemResult:
    """The result of one item.

    Attributes:
        image, trimap, output: as in the :class:`~dim_runtime.batch.items.Item`.
        status: "done", "failed", or "skipped" because it was done before.
        error: why it failed.
        inputs: identity of image and trimap when they were read; empty if it failed.
        megapixels: of the image; 0 unless done.
        seconds: time of the engine.
        windows: their number.
        cost: multiply-adds of all windows over the whole image's.
        output_bytes: size of the output file.
    """

    image: str
    trimap: str
    output: str
    status: Status
    error: str | None = None
    inputs: str = ""
    megapixels: float = 0.0
    seconds: float = 0.0
    windows: int = 0
    cost: float = 0.0
    output_bytes: int = 0


class Split(NamedTuple):
    """Items of a batch that are to be computed, and results that are known already."""

    todo: list[Item]
    settled: list[ItemResult]


def fingerprint(options: MattingOptions, spec: OutputSpec) -> Fingerprint:
    """Return all that determines the outputs: model and options by value, the release of this toolkit.

    A memory limit changes the windows. That has no effect on exact results, but a small one on blended ones.
    """
    made = {name: value for name, value in asdict(options).items() if name not in NO_EFFECT}
    made["device"] = options.device.partition(":")[0]
    if options.context != "exact":
        made["memory_limit"] = options.memory_limit
    made |= {name: value for name, value in asdict(spec).items() if name != "max_pixels"}
    if Path(spec.background).is_file():
        made["background"] = files.sha256(spec.background)
    return made | {"model": files.sha256(model_path(options.model)), "release": version("dim-matting")}


def split(items: Iterable[Item], folder: str, journal: Journal, *, overwrite: bool = False) -> Split:
    """Separate the items that are to be computed from those that are done, and claim the former.

    An output is done if the journal has it, the sizes and times of its inputs have not changed since, and the
    file exists in the recorded size. Its content is not read.

    Raises:
        InputError: an output is an input of this batch; two outputs are one file in this folder; or a file of
            an output's name is of other origin, and ``overwrite`` is False.
    """
    items = list(items)
    require_distinct(items, storage.file_key(folder))
    _require_no_input(items, folder)
    there = storage.existing(folder, [item.output for item in items])
    todo: list[Item] = []
    settled: list[ItemResult] = []
    for item in items:
        if item.problem is not None:
            settled.append(_failed(item, item.problem))
        elif item.output in there and _is_done(item, journal, there[item.output]):
            settled.append(_result(item, "skipped"))
        else:
            todo.append(item)
    if not overwrite:
        _require_own(folder, [item.output for item in todo if item.output in there], journal)
    journal.claim(item.output for item in todo)
    return Split(todo, settled)


def _is_done(item: Item, journal: Journal, size: int | None) -> bool:
    noted, recorded = journal.done.get(item.output), journal.sizes.get(item.output)
    if noted is None or (None not in (size, recorded) and size != recorded):
        return False
    with suppress(InputError):
        return noted == inputs_of(item)
    return False


def inputs_of(item: Item) -> str:
    """Return the identity of image and trimap as they are now; InputError if one is missing."""
    return f"{storage.identity(item.image)} {storage.identity(item.trimap)}"


def outputs_of(items: Iterable[Item], folder: str) -> list[Path]:
    """Return the files that a batch writes; none in remote storage."""
    if storage.is_remote(folder):
        return []
    return [storage.local(storage.join(folder, item.output)) for item in items]


def _require_no_input(items: list[Item], folder: str) -> None:
    if storage.is_remote(folder):
        return
    inputs = (name for item in items for name in (item.image, item.trimap) if not storage.is_remote(name))
    files.require_no_input(outputs_of(items, folder), map(storage.local, inputs))


def _require_own(folder: str, outputs: list[str], journal: Journal) -> None:
    foreign = [output for output in outputs if output not in journal.claimed]
    if foreign:
        raise InputError(
            f"cannot write into {folder}: {len(foreign)} of the outputs exist and are not of this batch",
            got=", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else ""),
            fix="use another output folder, or --overwrite to replace them",
        )


def remove_leftovers(folder: str, items: Iterable[Item]) -> None:
    """Remove temporary files of these outputs that a killed process has left."""
    if storage.is_remote(folder):
        return
    names: dict[Path, set[str]] = {}
    for item in items:
        path = storage.local(folder) / item.output
        names.setdefault(path.parent, set()).add(path.name)
    for parent, outputs in names.items():
        files.remove_leftovers(parent, outputs)


class ItemTask:
    """Reads and writes one item, and holds its arrays in between."""

    def __init__(self, item: Item, folder: str, spec: OutputSpec) -> None:
        self.item, self.spec = item, spec
        self.target = storage.join(folder, item.output)
        self.inputs, self.bytes = "", 0
        self._loaded: Loaded | None = None

    def load(self) -> tuple[Any, Any]:
        """Read the item's files; return image and trimap."""
        # Before reading: a file that changes meanwhile counts as changed and is done again.
        self.inputs = inputs_of(self.item)
        with storage.readable(self.item.image) as image, storage.readable(self.item.trimap) as trimap:
            self._loaded = load(image, trimap, self.spec)
        return self._loaded.image, self._loaded.trimap

    def save(self, job: Job) -> None:
        """Write the output of a job that is done, and let its arrays go."""
        assert self._loaded is not None, "a job that is done was loaded"
        assert job.alpha is not None, "a job that is done has its alpha"
        with storage.writable(self.target) as path:
            save(path, self._loaded, job.alpha, self.spec)
            self.bytes = path.stat().st_size
        self._loaded = job.alpha = None

    def result(self, job: Job) -> ItemResult:
        """Return what became of a job."""
        self._loaded = None
        if job.error is not None:
            return _failed(self.item, error_text(job.error))
        assert job.plan is not None, "a job that is done was planned"
        return _done(self.item, self.inputs, job.plan, job.seconds, self.bytes)


def _done(item: Item, inputs: str, plan: Plan, seconds: float, output_bytes: int) -> ItemResult:
    return replace(
        _result(item, "done"),
        inputs=inputs,
        megapixels=plan.height * plan.width / 1e6,
        seconds=seconds,
        windows=len(plan.windows),
        cost=plan.cost,
        output_bytes=output_bytes,
    )


def _result(item: Item, status: Status, error: str | None = None) -> ItemResult:
    return ItemResult(item.image, item.trimap, item.output, status, error)


def _failed(item: Item, error: str) -> ItemResult:
    return _result(item, "failed", error)


def run_items(matting: Matting, items: Iterable[Item], folder: str, spec: OutputSpec) -> Iterator[ItemResult]:
    """Matte and write items, in order; yield each result when its output is complete.

    Reading, inference and writing overlap as in :meth:`Matting.stream`, which has a bound on the images in
    memory. Under a memory limit, and for TIFF files that are not held in memory, it is one: read, computed
    and written as ``dim-matte run`` does, before the next is read.
    """

    def is_alone(item: Item) -> bool:
        return matting.memory_limit is not None or _streams(item, folder)

    for alone, group in groupby(items, key=is_alone):
        if alone:
            yield from (_run_alone(matting, item, folder, spec) for item in group)
        else:
            yield from _run_overlapped(matting, group, folder, spec)


def _streams(item: Item, folder: str) -> bool:
    names = (item.image, item.trimap, storage.join(folder, item.output))
    return not any(map(storage.is_remote, names)) and streams(*map(storage.local, names))


def _run_alone(matting: Matting, item: Item, folder: str, spec: OutputSpec) -> ItemResult:
    try:
        inputs, target = inputs_of(item), storage.join(folder, item.output)
        with ExitStack() as stack:
            image, trimap = (stack.enter_context(storage.readable(n)) for n in (item.image, item.trimap))
            path = stack.enter_context(storage.writable(target))
            outcome = run_pair(matting, image, trimap, path, spec)
            output_bytes = path.stat().st_size
    except Exception as error:  # one damaged pair must not end the batch
        return _failed(item, error_text(error))
    return _done(item, inputs, outcome.plan, outcome.seconds, output_bytes)


def _run_overlapped(
    matting: Matting, items: Iterable[Item], folder: str, spec: OutputSpec
) -> Iterator[ItemResult]:
    tasks = (ItemTask(item, folder, spec) for item in items)
    jobs = (Job(task.load, tag=task) for task in tasks)
    for job in matting.stream(jobs, finish=lambda job: job.tag.save(job)):
        yield job.tag.result(job)
