"""The batch on a Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dim.errors import InputError
from dim.images.files import write_image
from dim_runtime import Matting
from dim_runtime.batch.items import Item, read_items
from dim_runtime.batch.ray import ClusterError, run_on_ray
from dim_runtime.batch.run import run_items
from dim_runtime.cli import main
from dim_runtime.images.samples import lemur
from dim_runtime.outputs.spec import OutputSpec
from dim_runtime.settings import MattingOptions

ITEMS = 60
STORE = 80 * 2**20
"""Bytes of a node's object store: the least that Ray accepts is 75 MiB."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("onnxruntime")
    utilities = pytest.importorskip("ray.cluster_utils")
    # A dead node is noticed after two missed seconds instead of many.
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = utilities.Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Pieces of the lemur; one of them is no image."""
    image, trimap = lemur()
    for number in range(ITEMS):
        rows, columns = slice(4 * number, 4 * number + 90), slice(250, 330 + number % 9)
        write_image(tmp_path / "images" / f"{number:02d}.png", image[rows, columns])
        write_image(tmp_path / "trimaps" / f"{number:02d}.png", trimap[rows, columns])
    (tmp_path / "images/07.png").write_bytes(b"no image")
    return read_items(str(tmp_path))


@pytest.fixture
def matte(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Return a function that calls ``dim-matte batch`` and returns its exit code."""

    def call(*arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["dim-matte", "batch", *map(str, arguments), "--threads", "1"])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return call


@contextmanager
def killed_in_the_middle(cluster: Any, node: Any, out: Path) -> Iterator[list[int]]:
    """Kills the node when some outputs are there; gives how many there were then."""
    ended, killed = threading.Event(), list[int]()

    def watch() -> None:
        while not ended.wait(0.005):
            if len(list(out.glob("*.png"))) >= ITEMS // 8:
                cluster.remove_node(node, allow_graceful=False)
                killed.append(len(list(out.glob("*.png"))))
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
def test_every_output_is_there_once_though_a_node_dies(
    cluster: Any, items: list[Item], tmp_path: Path, matte: Callable[..., int | str | None]
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    out, report = tmp_path / "out", tmp_path / "report.json"
    command = (tmp_path, "-o", f"file://{out}")
    with killed_in_the_middle(cluster, node, out) as killed:
        assert matte(*command, "--ray", "--ray-address", cluster.address, "--report", report) == 1
    results = json.loads(report.read_text())["items"]
    assert killed[0] < ITEMS - 1, "the node died too late to show anything"
    assert sorted(result["output"] for result in results) == [item.output for item in items]
    assert [result["output"] for result in results if result["status"] != "done"] == ["07.png"]
    with Matting(threads=1) as matting:
        list(run_items(matting, items, str(tmp_path / "expected"), OutputSpec()))
    assert files(out) == files(tmp_path / "expected")
    assert matte(*command, "--report", report) == 1
    assert json.loads(report.read_text())["skipped"] == ITEMS - 1
    with pytest.raises(ClusterError, match=r"why: dim_runtime.errors.BackendError: cannot run .* in int8"):
        list(run_on_ray(items, str(out), MattingOptions(precision="int8"), OutputSpec(), cluster.address))
    with pytest.raises(ClusterError, match="cannot start an actor"):
        list(run_on_ray(items, str(out), MattingOptions(threads=64), OutputSpec(), cluster.address))


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".dim-batch.jsonl"}


def test_a_store_inside_one_process_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    items = [Item("memory://in/a.png", str(tmp_path / "t.png"), "a.png")]
    for given, folder in ((items, str(tmp_path)), ([], "memory://out")):
        with pytest.raises(InputError, match="inside one process"):
            next(run_on_ray(given, folder, MattingOptions(), OutputSpec()))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1", "127.0.0.1:x"])
def test_a_cluster_that_is_not_there_is_an_error_before_ray_waits_for_it(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match="Ray cluster"):
        next(run_on_ray([], "out", MattingOptions(), OutputSpec(), address))
