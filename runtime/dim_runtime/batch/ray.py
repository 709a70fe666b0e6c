"""A batch on a Ray cluster: actors of Ray Data, each of which holds one model.

Nodes need this package with the extra ``ray``, an engine, and access to the files: a file system that all of
them share, or an object store through fsspec. The model is sent to them.

A row is one item, a task a few of them, an actor a :class:`~dim_runtime.matting.Matting`. An item that fails
is a result like any other. When a node dies, Ray starts its actors elsewhere and repeats their tasks: an item
may be computed twice but has one output, which appears by a rename or by one upload and has the same content
each time; it is reported once.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dim.errors import DimError, InputError, MissingExtraError
from dim_runtime.backends.open import model_path
from dim_runtime.batch import storage
from dim_runtime.batch.items import Item
from dim_runtime.batch.run import ItemResult, run_items
from dim_runtime.matting import Matting
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.settings import MattingOptions

LARGEST_TASK = 16
"""Items of a task at most: enough for reading, inference and writing to overlap, few to repeat."""
TASKS_PER_ACTOR = 4
"""Tasks for each actor, if there are so many items: the actors then end at about the same time."""
CONNECT_SECONDS = 10.0
"""Time to reach the cluster's address; Ray itself tries for two minutes."""
PROCESS_STORES = ("memory",)
"""Schemes of stores that are inside one process: other processes cannot read them."""


class ClusterError(DimError):
    """The cluster cannot be reached, or ended the batch with an error. Finished outputs stay."""

    exit_code = 1


class Worker:
    """The state of an actor: a model, kept for all its tasks.

    Args:
        model: reference of the artefact's suffix and content in Ray's object store.
        options, spec, folder: as for a batch on one machine.
    """

    def __init__(self, model: Any, options: MattingOptions, spec: OutputSpec, folder: str) -> None:
        import ray

        suffix, content = ray.get(model[0])
        self._spec, self._folder = spec, folder
        with tempfile.TemporaryDirectory(prefix="dim-") as place:
            path = Path(place) / f"model{suffix}"
            path.write_bytes(content)
            self._matting = Matting.from_options(replace(options, model=path))

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """Matte items; items and results are JSON, a type on which all releases of Ray and Arrow agree."""
        items = [Item(**json.loads(row)) for row in rows["item"]]
        results = run_items(self._matting, items, self._folder, self._spec)
        return {"result": [json.dumps(asdict(result)) for result in results]}


def run_on_ray(
    items: list[Item], folder: str, options: MattingOptions, spec: OutputSpec, address: str | None = None
) -> Iterator[ItemResult]:
    """Matte and write items on a Ray cluster; results come in the order in which tasks end.

    Args:
        items: what to do; relative local names are taken from this process's working folder.
        folder: where outputs go, local (then shared by all nodes) or in an object store.
        options: of each actor's matting. ``threads`` (1 by default) are the CPUs that an actor reserves,
            ``device`` "cuda" reserves a GPU instead, ``memory_limit`` that much of a node's memory.
        spec: what is written.
        address: of the cluster; None for the environment's RAY_ADDRESS, or a cluster on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster is not there, has no room for an actor, or gave up.
    """
    _require_shared(items, folder)
    # Ray shows an actor the one GPU that it reserved, whatever its number on the node.
    options = replace(options, threads=options.threads or 1, device=options.device.partition(":")[0])
    with _connected(address) as ray:
        needs = _needs(options)
        actors = min(_room(ray, needs), len(items))
        rows = [{"item": json.dumps(asdict(_absolute(item)))} for item in items]
        data = ray.data.from_items(rows, override_num_blocks=_tasks(len(items), actors))
        model = model_path(options.model)
        reference = ray.put((model.suffix, model.read_bytes()))
        # Ray Data restarts actors, and repeats the tasks that they had, without limit.
        results = data.map_batches(
            Worker,
            # In a list: Ray would replace a bare reference by its content in every task.
            fn_constructor_args=([reference], replace(options, model=None), spec, _absolute_name(folder)),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            batch_size=None,
            **needs,
        )
        for row in results.iter_rows():
            yield ItemResult(**json.loads(row["result"]))


def _require_shared(items: list[Item], folder: str) -> None:
    for name in (folder, *(name for item in items for name in (item.image, item.trimap))):
        if name.partition("://")[0] in PROCESS_STORES and storage.is_remote(name):
            raise InputError(
                f"cannot use {name} on a Ray cluster",
                why="this store is inside one process; the nodes cannot reach it",
                fix="use a folder that all nodes share, or an object store such as s3://",
            )


def _require_reachable(address: str | None) -> None:
    """Raise ClusterError if the cluster's HOST:PORT does not accept a connection."""
    address = address or os.environ.get("RAY_ADDRESS")
    scheme = address.partition("://")[0] if address is not None and "://" in address else "ray"
    if address is None or address in ("auto", "local") or scheme != "ray":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()):
        raise ClusterError(
            "cannot use this address of a Ray cluster",
            got=repr(address),
            expected="HOST:PORT or ray://HOST:PORT",
            fix="use the address that 'ray status' or 'ray start --head' prints",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            return
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"cannot reach the Ray cluster at {address}",
            why=str(error),
            fix="start it (ray start --head), or correct --ray-address or RAY_ADDRESS",
        ) from error


def _tasks(items: int, actors: int) -> int:
    return max(min(items, actors * TASKS_PER_ACTOR), -(-items // LARGEST_TASK))


def _needs(options: MattingOptions) -> dict[str, Any]:
    """Return the resources that Ray reserves for one actor."""
    on_gpu = options.device.startswith("cuda")
    needs: dict[str, Any] = {"num_gpus": 1} if on_gpu else {"num_cpus": options.threads}
    if options.memory_limit is not None:
        needs["memory"] = options.memory_limit
    return needs


def _room(ray: Any, needs: dict[str, Any]) -> int:
    """Return the number of actors that the nodes can hold together."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(names[need], 0) // value) for need, value in needs.items()) for node in nodes)
    if room == 0:
        raise ClusterError(
            "cannot start an actor on this cluster",
            got=f"nodes with {nodes}",
            expected=f"one with at least {needs}",
            fix="fewer --threads, a smaller --memory-limit, or larger nodes",
        )
    return int(room)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected until the end; a connection that the caller has made is kept."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(
            "run on a Ray cluster", package="ray[data]", extra="ray", cause=error
        ) from error
    own = not ray.is_initialized()
    try:
        if own:
            _require_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ClusterError("the Ray cluster could not do the batch", why=_last_error(str(error))) from error
    finally:
        if own:
            ray.shutdown()


def _last_error(text: str) -> str:
    """Return the error of an actor, without the traceback that Ray adds."""
    lines = text.strip().splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception): ", line)]
    return "\n  ".join(lines[starts[-1] if starts else 0 :])


def _absolute(item: Item) -> Item:
    return replace(item, image=_absolute_name(item.image), trimap=_absolute_name(item.trimap))


def _absolute_name(name: str) -> str:
    return name if storage.is_remote(name) else str(storage.local(name).absolute())
