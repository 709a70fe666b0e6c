"""Figures that export/README.md and docs/export.md state, compared with an export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import pytest

from dim_export.graph.trace import trace
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.matting import default_model

TOP = Path(__file__).parents[2]
README = " ".join((TOP / "export" / "README.md").read_text(encoding="utf-8").split())


def _stated(pattern: str, text: str = README) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, f"the document has no sentence {pattern!r}"
    return list(map(int, found.groups()))


def test_node_counts_are_true(live_model: Any) -> None:
    stated = _stated(r"stage 1 has (\d+) nodes, stages 2 and 3 have (\d+), the embedded model (\d+),")
    counts = [len(list(trace(live_model(stage=stage, width=1 / 16)).graph)) for stage in (1, 2, 3)]
    assert counts[1] == counts[2]
    assert stated == [counts[0], counts[2], len(onnx.load(default_model()).graph.node)]


def test_every_room_is_listed() -> None:
    package = TOP / "export" / "dim_export"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    listed = set(re.findall(r"\| `([\w/.]+)` \|", (TOP / "export" / "README.md").read_text(encoding="utf-8")))
    assert listed == rooms | files


@pytest.mark.parametrize("name", ["docs/export.md"])
def test_the_smallest_window_is_true(name: str) -> None:
    text = " ".join((TOP / name).read_text(encoding="utf-8").split())
    assert _stated(r"\(embedded model: (\d+)\)", text) == [2 * read_metadata(default_model()).context + 32]
