"""The notebook runs from its first cell to its last, and makes a cut-out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

nbclient = pytest.importorskip("nbclient", reason="extra dev")
nbformat = pytest.importorskip("nbformat", reason="extra dev")
pytest.importorskip("ipykernel", reason="extra dev")
pytest.importorskip("onnxruntime")
pytest.importorskip("pymatting")

from dim_runtime.images.samples import sample_paths  # noqa: E402

NOTEBOOK = Path(__file__).parents[2] / "examples" / "photograph_to_cutout.ipynb"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_notebook_makes_a_cutout(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cutout = cv2.imread(str(tmp_path / "cutout.png"), cv2.IMREAD_UNCHANGED)
    photograph = cv2.imread(str(sample_paths()[0]))
    assert cutout.shape == (*photograph.shape[:2], 4)
    opaque, clear = cutout[..., 3] == 255, cutout[..., 3] == 0
    assert 0.1 < opaque.mean() < 0.7
    assert 0.1 < clear.mean() < 0.8
    # 255 is rounded, and colours are estimated together with those of translucent neighbours: a few differ.
    difference = np.abs(cutout[opaque][:, :3].astype(int) - photograph[opaque].astype(int))
    assert np.mean(difference > 1) < 1e-3
    assert difference.max() < 8
    pictures = [cell for cell in notebook.cells if cell.cell_type == "code" for _ in _pictures(cell)]
    assert len(pictures) == 4


def _pictures(cell: dict[str, list[dict[str, dict[str, str]]]]) -> list[dict[str, str]]:
    return [output["data"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
