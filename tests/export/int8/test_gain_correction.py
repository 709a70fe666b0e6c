"""int8 keeps the scale of the logits, so that its gates see a scaled layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dim import checkpoint
from dim.images.files import write_image
from dim.network import DIM
from dim_export.graph.trace import trace
from dim_export.int8.calibration import SAMPLED_PIXELS, AlphaSample, Calibration, calibrate
from dim_export.int8.convert import Quantisation
from dim_export.int8.gain_correction import rounding_gain, scale_logits
from dim_export.measure.opened import open_artefact
from dim_export.onnx_export import export
from dim_export.parity.cases import Picture, sample_cases
from dim_export.parity.gates import Measure
from dim_export.parity.reference import Reference
from dim_export.parity.result import ParityReport
from dim_export.parity.verify import Examination
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.images.pairs import MattingSample
from dim_runtime.images.samples import lemur

pytest.importorskip("onnxruntime")

EMBEDDED = default_model().with_suffix(".safetensors")
DECODER, REFINER = "backbone.decoder.deconv1", "refiner.refine_pred"


@pytest.fixture(scope="module")
def cut() -> Picture:
    """Return a part of the photograph with many unknown pixels."""
    first, *_ = sample_cases(read_metadata(default_model()), *lemur())
    return Picture(first.sample)


@pytest.fixture(scope="module")
def pairs(cut: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_image(folder / "images" / "cut.png", cut.sample.image)
    write_image(folder / "trimaps" / "cut.png", cut.sample.trimap)
    return folder


@pytest.fixture(scope="module", params=["trained", "random"])
def source(
    request: pytest.FixtureRequest,
    unpropagated: Path,
    live_model: Callable[..., DIM],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the embedded network without propagation, which hides scales; its refiner trained or random."""
    if request.param == "trained":
        return unpropagated
    model = checkpoint.load(unpropagated)
    config = model.config
    live = live_model(stage=3, width=config.width, cue_radii=config.cue_radii).refiner
    assert model.refiner is not None
    model.refiner.load_state_dict(live.state_dict())
    path = tmp_path_factory.mktemp("random") / "random.safetensors"
    checkpoint.save(model.eval(), path)
    return path


@pytest.fixture(scope="module")
def artefact(source: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    export.export(source, path, precision="int8", quantisation=Quantisation(pairs))
    return path


def _report(source: Path, artefact: Path, picture: Picture) -> ParityReport:
    engine = open_artefact(artefact, threads=1)
    examination = Examination(engine, Reference(source))
    examination.look_at(picture)
    engine.backend.close()
    return examination.report(source)


def _scaled(source: Path, target: Path, factor: float) -> Path:
    """Write a checkpoint whose last convolutions, those that compute logits, are scaled."""
    model = checkpoint.load(source)
    with torch.no_grad():
        for name in (DECODER, REFINER) if model.refiner is not None else (DECODER,):
            model.get_submodule(name).weight.mul_(factor)
    checkpoint.save(model, target, provenance={})
    return target


def test_int8_keeps_the_scale_and_sees_when_it_is_wrong(
    source: Path, artefact: Path, cut: Picture, tmp_path: Path
) -> None:
    report = _report(source, artefact, cut)
    assert report.passed
    assert report.gain == pytest.approx(1, abs=0.015)
    for factor in (1.05, 1 / 1.05):
        report = _report(_scaled(source, tmp_path / "scaled.safetensors", factor), artefact, cut)
        assert {judgement.measure for judgement in report.judgements if not judgement.passed} == {
            Measure.GAIN
        }
        assert report.gain == pytest.approx(1 / factor, abs=0.015)


def test_the_embedded_network_passes_with_its_propagation(pairs: Path, cut: Picture, tmp_path: Path) -> None:
    export.export(EMBEDDED, tmp_path / "int8.onnx", precision="int8", quantisation=Quantisation(pairs))
    report = _report(EMBEDDED, tmp_path / "int8.onnx", cut)
    assert report.passed
    assert report.gain == pytest.approx(1, abs=0.015)


class Small(NamedTuple):
    model: DIM
    pair: MattingSample
    seen: Calibration

    def slope(self, factor: float, sample: AlphaSample) -> float:
        """Of the float graph with scaled logits."""
        graph = trace(scale_logits(self.model, factor))
        return rounding_gain(graph, self.model, [self.pair], [sample])


@pytest.fixture(scope="module")
def small(live_model: Callable[..., DIM]) -> Small:
    draw = np.random.default_rng(0)
    pair = MattingSample(draw.integers(0, 256, (64, 64, 3), np.uint8), np.full((64, 64), 128, np.uint8))
    model = live_model(stage=3, width=0.0625)
    return Small(model, pair, calibrate(model, [pair]))


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (1.1, 1.1), (3.0, 1.0)])
def test_the_slope_is_measured_and_one_beyond_reason_is_left_to_the_gates(
    small: Small, factor: float, expected: float
) -> None:
    assert small.slope(factor, small.seen.samples[0]) == pytest.approx(expected, rel=0.02)


def test_trust_is_not_scaled_with_the_logits(live_model: Callable[..., DIM]) -> None:
    model = live_model(stage=3, width=0.0625, propagation_steps=(1,))
    scaled = scale_logits(model, 0.5).state_dict()
    for name, before in model.state_dict().items():
        if name.startswith((f"{DECODER}.", f"{REFINER}.")):
            assert torch.equal(scaled[name][:1], before[:1] / 2)
            assert torch.equal(scaled[name][1:], before[1:])
        else:
            assert torch.equal(scaled[name], before)


def test_too_few_pixels_tell_nothing(small: Small) -> None:
    (sample,) = small.seen.samples
    few = sample._replace(pixels=sample.pixels[:100], alpha=sample.alpha[:100])
    assert small.slope(1.1, few) == 1


def test_answers_are_of_unknown_pixels_that_are_neither_black_nor_white(small: Small) -> None:
    trimap = np.zeros((160, 160), np.uint8)
    trimap[:, :150] = 128
    image = np.tile(small.pair.image, (3, 3, 1))[:160, :160]
    (sample,) = calibrate(small.model, [MattingSample(image, trimap)]).samples
    assert len(sample.pixels) == len(sample.alpha) == SAMPLED_PIXELS
    assert len(np.unique(sample.pixels)) == SAMPLED_PIXELS
    assert (sample.pixels % 160 < 150).all()
    assert 0.05 < sample.alpha.min() < sample.alpha.max() < 0.95
