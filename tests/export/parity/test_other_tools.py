"""What other tools make of an artefact computes what the artefact computes, and verify compares both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dim_export.cli.printing import print_parity
from dim_export.measure.opened import open_artefact
from dim_export.parity import other_tools
from dim_export.parity.gates import Measure
from dim_export.parity.other_tools import ToolResult, after_other_tools
from dim_export.parity.reference import Reference
from dim_export.parity.result import ParityReport
from dim_export.parity.verify import Examination
from dim_runtime import Matting
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.errors import ChangedGraphWarning
from dim_runtime.images.samples import lemur


def test_openvino_s_half_precision_weights_keep_the_alpha(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    openvino.save_model(core.read_model(default_model()), tmp_path / "half.xml")  # fp16 weights by default
    image, trimap = (array[None, 64:224, 192:384] for array in lemur()[:2])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    alphas = [
        core.compile_model(path, "CPU", options)({"image": image, "trimap": trimap})["alpha"]
        for path in (default_model(), tmp_path / "half.xml")
    ]
    difference = np.abs(alphas[1] - alphas[0])
    assert (difference[trimap != 128] == 0).all()
    assert 0 < difference[trimap == 128].mean() < 1e-3


@pytest.mark.parametrize(("engine", "tolerance"), [("onnxruntime", 1e-5), ("openvino", 1e-3)])
def test_onnxslim_keeps_the_alpha_and_the_metadata(tmp_path: Path, engine: str, tolerance: float) -> None:
    onnx, onnxslim = pytest.importorskip("onnx"), pytest.importorskip("onnxslim")
    pytest.importorskip("onnxruntime")
    pytest.importorskip(engine)
    slim = onnxslim.slim(str(default_model()))
    # ONNX Runtime Web's WebGPU has buffers for so many outputs of a node.
    assert max(len(node.output) for node in slim.graph.node) <= 4
    onnx.save(slim, tmp_path / "slim.onnx")
    assert read_metadata(tmp_path / "slim.onnx") == read_metadata(default_model())
    image, trimap = (array[64:224, 192:384] for array in lemur()[:2])
    ours = Matting(threads=1)(image, trimap)
    with pytest.warns(ChangedGraphWarning, match="more work"):
        slimmed = Matting(tmp_path / "slim.onnx", backend=engine)
    with slimmed:
        np.testing.assert_allclose(slimmed(image, trimap), ours, atol=tolerance)


def _judged(checkpoint: Path, artefact: Path) -> ParityReport:
    """Return the report of the tools alone, without a case."""
    opened = open_artefact(artefact, threads=1)
    examination = Examination(opened, Reference(checkpoint))
    examination.rewrite()
    opened.backend.close()
    return examination.report(checkpoint)


def _found(report: ParityReport) -> dict[Measure, float | None]:
    return {judgement.measure: judgement.found for judgement in report.judgements}


def _failed(report: ParityReport) -> set[Measure]:
    return {judgement.measure for judgement in report.judgements if not judgement.passed}


def _edited(source: Path, target: Path, edit: Callable[[Any], None]) -> Path:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    edit(model.graph)
    onnx.save(model, target)
    return target


def test_verify_has_a_case_of_each_tool(live_checkpoint: Path, live_artefact: Path) -> None:
    pytest.importorskip("openvino")
    report = _judged(live_checkpoint, live_artefact)
    assert [tool.tool for tool in report.tools] == ["onnxslim", "OpenVINO fp16"]
    for tool in report.tools:
        assert (tool.width, tool.height, tool.changed_known) == (192, 160, 0)
        assert tool.version
        assert tool.difference is not None
        assert tool.difference.unknown_pixels > 5000
        assert tool.difference.spread > 0.02
    found = _found(report)
    assert found[Measure.SLIMMED] == pytest.approx(0, abs=1e-5)
    # Rounded weights leave a trace, so that the two files were not the same one.
    assert 0 < found[Measure.HALF_WEIGHTS] < 0.03  # type: ignore[operator]
    assert found[Measure.NODE_OUTPUTS] == 4
    assert found[Measure.REWRITTEN_KNOWN] == 0
    assert not _failed(report)


def test_a_graph_whose_known_pixels_depend_on_a_rounded_number_fails(
    live_checkpoint: Path, live_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    monkeypatch.setattr(other_tools, "find_spec", lambda name: object() if name == "openvino" else None)

    def edit(graph: Any) -> None:
        """Divide by 255 and multiply with it: in fp16, 1/255 is another number, and 1 does not come back."""
        (alpha,) = [node for node in graph.node if "alpha" in node.output]
        alpha.output[list(alpha.output).index("alpha")] = "exact"
        for name, value in (("least", 1 / 255), ("most", 255.0)):
            graph.initializer.append(
                onnx.numpy_helper.from_array(np.full((1, 1, 1), value, np.float32), name)
            )
        for start, number, end in (("exact", "least", "gray"), ("gray", "most", "alpha")):
            graph.node.append(onnx.helper.make_node("Mul", [start, number], [end]))

    report = _judged(live_checkpoint, _edited(live_artefact, tmp_path / "large.onnx", edit))
    assert _failed(report) == {Measure.REWRITTEN_KNOWN}


def test_a_node_of_five_outputs_fails(
    live_checkpoint: Path, live_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(other_tools, "find_spec", lambda name: None)

    def edit(graph: Any) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(5, np.float32), "five"))
        parts = [f"part {number}" for number in range(5)]
        graph.node.append(onnx.helper.make_node("Split", ["five"], parts, num_outputs=5))

    report = _judged(live_checkpoint, _edited(live_artefact, tmp_path / "split.onnx", edit))
    assert _failed(report) == {Measure.NODE_OUTPUTS}
    assert _found(report)[Measure.NODE_OUTPUTS] == 5


def test_a_tool_that_is_not_installed_is_skipped_with_the_reason(
    live_checkpoint: Path, live_artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_tools, "find_spec", lambda name: None)
    report = _judged(live_checkpoint, live_artefact)
    assert report.passed
    assert _found(report)[Measure.SLIMMED] is None
    assert "onnxslim is not installed: pip install onnxslim" in report.model_dump_json()
    console = Console(record=True, width=80)
    print_parity(report, console)
    printed = console.export_text()
    assert "skipped: OpenVINO fp16: openvino is not installed" in printed
    assert "not measured  SAD of the difference / (unknown / 1000), after onnxslim" in printed


def test_a_tool_that_refuses_the_file_fails(
    live_checkpoint: Path, live_artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("an operator\nthat it does not have")

    tool = other_tools._Tool("a tool", "onnx", Measure.SLIMMED, refuse)  # type: ignore[arg-type]
    monkeypatch.setattr(other_tools, "_TOOLS", (tool,))
    report = _judged(live_checkpoint, live_artefact)
    assert _failed(report) == {Measure.SLIMMED}
    console = Console(record=True, width=120)
    print_parity(report, console)
    assert "a tool does not accept the file: RuntimeError: an operator that it" in console.export_text()


def test_an_engine_is_rewritten_by_no_tool(live_artefact: Path) -> None:
    opened = open_artefact(live_artefact, threads=1)
    results = after_other_tools(opened._replace(path=live_artefact.with_suffix(".engine")))
    opened.backend.close()
    assert all("is no ONNX file" in result.skipped for result in results)


def test_a_frozen_window_is_filled() -> None:
    metadata = read_metadata(default_model())
    for shape in ((1, 64, 96), (2, 224, 160)):
        window = other_tools._window(metadata.model_copy(update={"static_shape": shape}))
        assert window.trimap.shape == shape
        assert window.image.shape == (*shape, 3)


def test_results_are_written_and_read_again() -> None:
    result = ToolResult(tool="a", measure=Measure.SLIMMED, error="no")
    assert ToolResult.model_validate_json(result.model_dump_json()) == result
