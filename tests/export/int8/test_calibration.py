"""Ranges of activations: histograms in constant memory, methods, pairs, and the sensitivity table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dim import checkpoint
from dim.errors import InputError
from dim.network import DIM
from dim_export.int8.calibration import CalibrationPairs, calibrate, default_folder
from dim_export.int8.histogram import BINS, Histogram, Method
from dim_runtime.images.pairs import MattingSample


def _histogram(*parts: torch.Tensor) -> Histogram:
    """Of one channel."""
    histogram = Histogram(1)
    for part in parts:
        histogram.add(part.reshape(1, 1, 1, -1))
    return histogram


def _range(histogram: Histogram, method: Method) -> float:
    (found,) = histogram.ranges(method)
    return float(found)


def test_minmax_is_the_largest_magnitude() -> None:
    assert _range(_histogram(torch.tensor([0.5, -3.25]), torch.tensor([2.0])), "minmax") == 3.25


def test_a_histogram_grows_by_doubling_and_forgets_nothing() -> None:
    small, large = torch.full((1000,), 0.3), torch.full((10,), 100.0)
    histogram = _histogram(small, large, small)
    assert histogram.counts.shape == (1, BINS)
    assert histogram.counts.sum() == 2010
    assert histogram.bounds.tolist() == [128]
    place = int(0.3 / 128 * BINS)
    assert histogram.counts[0, place] == 2000


def test_channels_are_counted_apart() -> None:
    histogram = Histogram(3)
    histogram.add(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-0.1, 0.3]]).reshape(1, 3, 1, 2))
    histogram.add(torch.tensor([[5.0], [0.0], [0.0]]).reshape(1, 3, 1, 1))
    assert histogram.counts.sum(1).tolist() == [2, 0, 2]
    # Of a channel that was never alive nothing is known: it gets as much as any.
    assert histogram.ranges("minmax") == pytest.approx([5, 5, 0.3])


def test_zeros_are_not_counted() -> None:
    histogram = _histogram(torch.tensor([0.0] * 1000 + [1.0, 1e-6]))
    assert histogram.counts.sum() == 2
    assert _range(_histogram(torch.zeros(8)), "mse") == 1


def test_the_percentile_leaves_outliers_out() -> None:
    values = torch.cat([torch.linspace(0.1, 1, 100_000), torch.tensor([1000.0])])
    found = _histogram(values)
    assert _range(found, "minmax") == 1000
    assert 0.9 < _range(found, "percentile") < 2.1, "a bin of 1024 is 1 wide"


def test_the_percentile_is_the_upper_edge_of_its_bin() -> None:
    """A bin of a histogram up to 1 is 1/1024 wide; 0.25 lies at the lower edge of bin 256."""
    found = _histogram(torch.tensor([0.25] * 20_000 + [1.0]))
    assert _range(found, "percentile") == 257 / 1024


def test_mse_is_the_best_of_all_ranges() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(50_000, generator=draw).exp()

    def error(largest: float) -> float:
        step = largest / 127
        return float(((values / step).round().clamp(-127, 127) * step - values).square().mean())

    histogram = _histogram(values)
    found = error(_range(histogram, "mse"))
    assert found < error(_range(histogram, "minmax"))
    assert found <= 1.02 * min(
        error(float(largest)) for largest in np.linspace(1, float(histogram.largest[0]), 100)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite(value: float) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        _histogram(torch.tensor([1.0, value]))


def _pair(size: int, seed: int = 0) -> MattingSample:
    draw = np.random.default_rng(seed)
    trimap = np.zeros((size, size), np.uint8)
    trimap[8:-8, 8:-8] = 128
    return MattingSample(draw.integers(0, 256, (size, size, 3), dtype=np.uint8), trimap)


def test_every_convolution_is_seen_as_the_graph_computes_it(live_model: Callable[..., DIM]) -> None:
    model = live_model(stage=3, width=0.0625, batch_norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = calibrate(model, [_pair(64)])
    assert len(seen.histograms) == 25
    ranges = seen.ranges("minmax")
    channels = seen.channel_ranges("minmax")["backbone.encoder.layer1.0"]
    assert channels.shape == (4,)
    assert channels[3] == pytest.approx(128 / 255), "the trimap shows 0 and 128 only"
    assert ranges["backbone.encoder.layer1.0"] == pytest.approx(2.64, abs=0.01), "white, normalised"
    assert all(value > 0 for value in ranges.values())
    assert seen.largest_output >= max(
        value for name, value in ranges.items() if name.startswith("backbone.decoder.deconv1_1")
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_windows_lie_around_unknown_pixels_and_are_bounded(live_model: Callable[..., DIM]) -> None:
    image = np.zeros((1600, 1600, 3), np.uint8)
    trimap = np.zeros((1600, 1600), np.uint8)
    trimap[40:60, 40:60] = trimap[1500:1520, 1500:1520] = 128
    progress: list[tuple[int, int]] = []
    seen = calibrate(
        live_model(stage=1, width=0.0625),
        [MattingSample(image, trimap)],
        progress=lambda done, total: progress.append((done, total)),
    )
    assert seen.windows == 2
    assert progress == [(1, 1)]


def test_pairs_without_an_unknown_pixel(live_model: Callable[..., DIM]) -> None:
    pair = MattingSample(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))
    with pytest.raises(InputError, match="without an unknown pixel"):
        calibrate(live_model(stage=1, width=0.0625), [pair])


def test_the_shipped_pairs() -> None:
    pairs = CalibrationPairs()
    assert len(pairs) == len(list(pairs)) == 13
    for image, trimap, *_ in pairs:
        assert image.dtype == trimap.dtype == np.uint8
        assert image.shape == (*trimap.shape, 3)
        assert set(np.unique(trimap)) <= {0, 128, 255}
        assert (trimap == 128).any()
    size = sum(file.stat().st_size for file in default_folder().rglob("*") if file.is_file())
    assert size < 600_000


def test_a_folder_of_pairs(tmp_path: Path) -> None:
    for name, array in (("images", _pair(40).image), ("trimaps", _pair(40).trimap)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), array)
    (only,) = CalibrationPairs(tmp_path)
    assert only.image.shape == (40, 40, 3)
    (tmp_path / "images" / "b.png").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    with pytest.raises(InputError, match=r"no b\.\* in"):
        CalibrationPairs(tmp_path)


def test_the_sensitivity_table(live_model: Callable[..., DIM], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from dim_export.int8.sensitivity import measure

    for name, array in (("images", _pair(64).image), ("trimaps", _pair(64).trimap)):
        (tmp_path / "data" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / name / "a.png"), array)
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(live_model(stage=1, width=0.0625), path, provenance={})
    layers = ["backbone.encoder.layer1.2", "backbone.decoder.deconv1"]
    found = measure(path, tmp_path / "data", method="minmax", calibration=tmp_path / "data", layers=layers)
    assert (found.against, found.pairs) == ("fp32", 1)
    assert found.fp32_sad == found.base_sad == 0
    assert found.int8_sad > 0
    assert {cost.layer for cost in found.layers} == set(layers)
    assert found.layers[0].sad >= found.layers[1].sad > 0
