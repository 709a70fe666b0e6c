"""What the gates see and what they let pass: the embedded network and small random ones, right and wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dim.contract import METADATA_KEY, ArtefactMetadata
from dim.images.files import write_image
from dim_export.graph.torch_backend import TorchBackend
from dim_export.measure import opened as engines
from dim_export.measure.opened import open_artefact
from dim_export.measure.timing import alternate, random_window, times_faster
from dim_export.onnx_export.export import export
from dim_export.parity.cases import Picture, cases, pictures, sample_cases, tie_image
from dim_export.parity.gates import Measure
from dim_export.parity.pooling_choices import POOLS, SwitchProbe, find_switches
from dim_export.parity.reference import Reference, runs_whole
from dim_export.parity.report import ReleaseReport, examine
from dim_export.parity.result import ParityReport
from dim_export.parity.verify import Examination
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import default_model
from dim_runtime.errors import BackendError, InputError
from dim_runtime.images.samples import lemur
from dim_runtime.matting import Matting

EMBEDDED = default_model().with_suffix(".safetensors")
Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Return PyTorch's embedded network, which caches its results from test to test."""
    return Reference(EMBEDDED)


@pytest.fixture(scope="module")
def cut() -> Picture:
    """Return a part of the photograph with many unknown pixels, so that the tests stay short."""
    first, *_ = sample_cases(read_metadata(default_model()), *lemur())
    return Picture(first.sample)


def _edited(source: Path, target: Path, edit: Edit) -> Path:
    model = onnx.load(source)
    edit(model)
    onnx.save(model, target)
    return target


def _report(
    reference: Reference, artefact: Path, *looked_at: Picture, source: Path = EMBEDDED
) -> ParityReport:
    engine = open_artefact(artefact, threads=1)
    examination = Examination(engine, reference)
    for picture in looked_at:
        examination.look_at(picture)
    engine.backend.close()
    return examination.report(source)


def _failed(report: ParityReport) -> set[Measure]:
    return {judgement.measure for judgement in report.judgements if not judgement.passed}


def test_the_embedded_artefact_passes(reference: Reference, cut: Picture) -> None:
    report = _report(reference, default_model(), cut, tie_image(192, 416))
    assert report.passed
    assert report.same_checkpoint
    assert report.gain == pytest.approx(1, abs=1e-4)
    for case in report.cases:
        assert case.spread > 0.1
        assert case.pooling is not None
        assert case.pooling.windows > 100_000
        # Two columns that are equal may round apart in one engine and not in the other.
        assert case.pooling.different <= case.pooling.windows // 1000


@pytest.mark.parametrize("context", [32, 192, 320, 352, 704])
def test_the_tiled_photograph_has_several_windows(context: int) -> None:
    metadata = read_metadata(default_model()).model_copy(update={"context": context})
    (case,) = [case for case in sample_cases(metadata, *lemur()) if case.tiled]
    plan = Matting.from_backend(_Planned(metadata), tile=case.tile).plan(case.sample.trimap)
    assert len(plan.windows) >= 2


class _Planned(Backend):
    """A back end that is only planned for."""

    def __init__(self, metadata: ArtefactMetadata) -> None:
        self._metadata = metadata

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: Any, trimap: Any) -> Any:
        return trimap.astype(np.float32)


def test_scaled_logits_fail(unpropagated: Path, cut: Picture, tmp_path: Path) -> None:
    def scale(model: Any) -> None:
        """Return the input of the last sigmoid, because a refiner reacts to a change of earlier layers."""
        nodes = model.graph.node
        place, last = [(place, node) for place, node in enumerate(nodes) if node.op_type == "Sigmoid"][-1]
        model.graph.initializer.append(numpy_helper.from_array(np.float32(1.05), "factor"))
        nodes.insert(place, onnx.helper.make_node("Mul", [last.input[0], "factor"], ["scaled"]))
        last.input[0] = "scaled"

    export(unpropagated, tmp_path / "right.onnx")
    artefact = _edited(tmp_path / "right.onnx", tmp_path / "scaled.onnx", scale)
    report = _report(Reference(unpropagated), artefact, cut, source=unpropagated)
    assert _failed(report) == {Measure.SHARE_BEYOND}
    # What the gates of low precision go by.
    assert report.gain == pytest.approx(1.05, abs=0.003)


def test_so_do_those_of_a_network_that_propagates_alpha(
    reference: Reference, cut: Picture, tmp_path: Path
) -> None:
    def scale(model: Any) -> None:
        arrays = {value.name: value for value in model.graph.initializer}
        for name in ("weight", "bias"):
            found = arrays[f"refiner.refine_pred.{name}"]
            scaled = numpy_helper.to_array(found).copy()
            # The channels of refined alpha, one for each pixel of a block of 2 × 2.
            scaled[::2] *= 1.05
            found.CopyFrom(numpy_helper.from_array(scaled, found.name))

    report = _report(reference, _edited(default_model(), tmp_path / "scaled.onnx", scale), cut)
    assert _failed(report) == {Measure.SHARE_BEYOND}


def test_every_comparison_that_breaks_ties_the_wrong_way_fails(reference: Reference, tmp_path: Path) -> None:
    comparisons = [
        node.name for node in onnx.load(default_model()).graph.node if node.op_type == "GreaterOrEqual"
    ]
    assert len(comparisons) == 3 * POOLS
    for name in comparisons:
        path = _edited(
            default_model(), tmp_path / "wrong.onnx", lambda model, name=name: _strict(model, {name})
        )
        report = _report(reference, path, tie_image(192, 416))
        assert _failed(report) == {Measure.TIES}, name
        assert report.cases[0].pooling.different > 10, name  # type: ignore[union-attr]


def test_ties_broken_the_wrong_way_fail_on_the_photograph(
    reference: Reference, cut: Picture, tmp_path: Path
) -> None:
    path = _edited(default_model(), tmp_path / "wrong.onnx", lambda model: _strict(model, None))
    assert _failed(_report(reference, path, cut)) == {Measure.SHARE_BEYOND, Measure.MEAN_DIFFERENCE}


def _strict(model: Any, names: set[str] | None) -> None:
    for node in model.graph.node:
        if node.op_type == "GreaterOrEqual" and (names is None or node.name in names):
            node.op_type = "Greater"


def test_nan_weights_are_named(reference: Reference, cut: Picture, tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        (bias,) = [w for w in model.graph.initializer if w.name == "backbone.decoder.deconv1.bias"]
        bias.CopyFrom(numpy_helper.from_array(np.full(16, np.nan, np.float32), bias.name))

    report = _report(reference, _edited(default_model(), tmp_path / "nan.onnx", spoil), cut)
    assert report.not_finite == ("nan.onnx: backbone.decoder.deconv1.bias",)
    assert report.nan_pixels == report.cases[0].unknown_pixels
    assert Measure.NOT_FINITE in _failed(report)


def test_the_probe_sees_what_pytorch_chooses(live_model: Callable[..., Any], live_artefact: Path) -> None:
    sample = tie_image(64, 96).sample
    batch = sample.image[None], sample.trimap[None]
    watched = TorchBackend(live_model(batch_norm=True)).watch(*batch)
    probe = SwitchProbe(live_artefact, threads=1)
    assert probe.works
    found = probe.choices(*batch)
    assert [level.shape for level in found] == [level.shape for level in watched.choices]
    for expected, level in zip(watched.choices, found, strict=True):
        assert (expected == level).mean() > 0.99
        assert set(np.unique(level)) <= {0, 1, 2, 3}
    assert {0, 1, 2, 3} <= set(np.unique(found[0]))
    assert (watched.alpha == TorchBackend(live_model(batch_norm=True)).run(*batch)).all()


def test_a_graph_without_pools_is_not_probed() -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    assert find_switches(onnx.helper.make_graph([node], "g", [], [])) == []


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Write a folder of one small photograph with a trimap and a truth."""
    image, trimap = lemur()
    part = slice(100, 196), slice(200, 328)
    write_image(tmp_path / "photos" / "images" / "a.png", image[part])
    write_image(tmp_path / "photos" / "trimaps" / "a.png", trimap[part])
    truth = np.where(trimap[part] == 128, 100, trimap[part]).astype(np.uint8)
    write_image(tmp_path / "photos" / "alphas" / "a.png", truth)
    yield tmp_path / "photos"
    shutil.rmtree(tmp_path / "photos")


def test_a_folder_adds_photographs_with_truth(folder: Path) -> None:
    *_, photograph = pictures(folder)
    assert (photograph.sample.name, photograph.kind) == ("a", "photograph")
    assert photograph.sample.alpha is not None
    assert photograph.sample.alpha.shape == photograph.sample.trimap.shape
    shutil.rmtree(folder / "alphas")
    *_, photograph = pictures(folder)
    assert photograph.sample.alpha is None


def test_a_truth_of_another_size_is_an_error(folder: Path) -> None:
    write_image(folder / "alphas" / "a.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="alpha 9×9 px"):
        list(pictures(folder))


def _rewritten(source: Path, target: Path, before: str, after: str) -> Path:
    """Write a copy of an artefact with another metadata document."""

    def edit(model: Any) -> None:
        (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
        assert before in entry.value
        entry.value = entry.value.replace(before, after)

    return _edited(source, target, edit)


@pytest.fixture
def frozen(live_artefact: Path, tmp_path: Path) -> Path:
    """Return a small network's artefact frozen to windows of 64×96 px, the quickest to compare."""
    return _rewritten(
        live_artefact, tmp_path / "frozen.onnx", '"static_shape":null', '"static_shape":[1,64,96]'
    )


def test_the_report_of_two_artefacts(live_checkpoint: Path, frozen: Path, folder: Path) -> None:
    opened = [open_artefact(frozen, threads=1) for _ in range(2)]
    report, snapshots = examine(
        live_checkpoint, opened, folder=folder, float64=True, runs=2, command="a test"
    )
    assert report.passed
    first, second = report.artefacts
    assert first.speed is not None
    assert first.speed.times_faster == 1
    assert (first.speed.height, first.speed.width, len(first.speed.runs_s)) == (64, 96, 2)
    assert second.parity.left_out == ("a",)
    assert second.parity.sad_shift is None
    # An image that two cases share is computed once.
    assert {row.name for row in report.rounding} == {"multiple of 32", "small", "tiny", "tie image"}
    assert all(case.against_float64 is not None for case in first.parity.cases)
    assert all(snapshot is not None for snapshot in snapshots)
    assert report.environment.processor
    again = ReleaseReport.model_validate_json(report.model_dump_json())
    assert again.artefacts[0].parity.cases == first.parity.cases


def test_scores_against_the_truth_are_in_the_report(
    live_checkpoint: Path, live_artefact: Path, folder: Path
) -> None:
    *_, photograph = pictures(folder)
    report = _report(Reference(live_checkpoint), live_artefact, photograph)
    assert report.cases[0].truth is not None
    assert report.sad_shift == pytest.approx(0, abs=0.005)


def test_a_large_reference_is_tiled_and_a_small_one_whole(live_artefact: Path) -> None:
    matting = Matting.from_backend(open_artefact(live_artefact, threads=1).backend)
    assert runs_whole(matting.plan(np.zeros((1024, 1024), np.uint8)))
    assert not runs_whole(matting.plan(np.zeros((1024, 1056), np.uint8)))


def test_cases_that_share_an_image_share_an_answer(live_checkpoint: Path, live_artefact: Path) -> None:
    engine = open_artefact(live_artefact, threads=1)
    first = tie_image(64, 64)
    reference = Reference(live_checkpoint)
    for picture in (first, tie_image(64, 64), tie_image(64, 96)):
        (case,) = cases(picture, engine.backend.metadata)
        reference.expected(case, Matting.from_backend(engine.backend).plan(case.sample.trimap))
    assert len(reference.results) == 2
    reference.forget()
    assert not reference.results


class _Recorder:
    """Stands in for open_backend and records its arguments."""

    def __init__(self, metadata: Any) -> None:
        self.metadata, self.asked = metadata, {}

    def __call__(self, path: Path, **asked: Any) -> Any:
        self.asked = asked
        return self


@pytest.fixture
def bf16(live_artefact: Path, tmp_path: Path) -> Path:
    """Write a file whose metadata has the precision bf16."""
    return _rewritten(live_artefact, tmp_path / "bf16.onnx", '"precision":"fp32"', '"precision":"bf16"')


def test_bf16_files_run_in_openvino(bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _Recorder(read_metadata(bf16))
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    monkeypatch.setattr(engines, "open_backend", opened)
    engine = open_artefact(bf16, threads=1)
    assert (opened.asked["backend"], engine.name, engine.precision) == ("openvino", "openvino", "bf16")


def test_without_openvino_the_error_names_it(bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="OpenVINO") as caught:
        open_artefact(bf16)
    assert "--no-verify" in str(caught.value)


class _Clocked:
    """A back end that records its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls

    def run(self, image: Any, trimap: Any) -> None:
        self._calls.append(self._name)


def test_back_ends_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []
    backends: Any = [_Clocked("a", calls), _Clocked("b", calls)]
    times = alternate(backends, [random_window(32, 32)] * 2, 3)
    assert "".join(calls) == "abababab"
    assert [len(row) for row in times] == [3, 3]


def test_speed_is_the_median_of_rounds_for_equal_work() -> None:
    assert times_faster([2, 2, 90], [1, 1, 1]) == 2
    assert times_faster([1, 1, 1], [2, 2, 2], work=4) == 2
