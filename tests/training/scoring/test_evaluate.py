"""The published test: the whole predict path, four scores, workers beside it, artefacts like checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dim import metrics
from dim.arrays import UInt8
from dim.contract import NetworkConfig
from dim.errors import DimError, InputError, MissingExtraError
from dim.network import DIM, normalise
from dim.trimap import apply_known
from dim_runtime.images.pairs import MattingSample
from dim_training.processes import worker_processes
from dim_training.scoring.evaluate import evaluate, score_network
from dim_training.scoring.predictors import is_artefact, open_predictor, predict
from dim_training.scoring.scores import Region, mean_scores, score


def _photograph(name: str = "one", height: int = 50, width: int = 70, seed: int = 0) -> MattingSample:
    draw = np.random.default_rng(seed)
    trimap = np.full((height, width), 128, np.uint8)
    trimap[:8], trimap[-9:] = 0, 255
    image = cv2.GaussianBlur(draw.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2)
    alpha = draw.integers(0, 256, (height, width), np.uint8)
    return MattingSample(image.astype(np.uint8), trimap, apply_known(alpha, trimap), name)


def _red(image: UInt8, trimap: UInt8) -> UInt8:
    """Return a predictor without a network."""
    return apply_known(image[..., 0], trimap)


@pytest.mark.parametrize("stage", [1, 3])
def test_the_published_predict_path(
    golden: Callable[[str], Any], golden_weights: dict[str, Any], stage: Any
) -> None:
    expected = golden("B_predict_61x45")
    model = DIM(NetworkConfig(stage=stage)).eval()
    model.load_state_dict({key: golden_weights[key] for key in model.state_dict()})
    image = np.ascontiguousarray(expected["bgr"][..., ::-1])
    alpha = predict(model, image, expected["trimap"])
    difference = np.abs(alpha.astype(int) - expected[f"stage{stage}_u8"])
    assert difference.max() <= 1


def test_a_prediction_is_padded_by_reflection_rounded_and_forced(live_model: Callable[..., DIM]) -> None:
    model, photo = live_model(), _photograph()
    rows, columns = np.r_[:50, 48:34:-1], np.r_[:70, 68:42:-1]
    image, trimap = photo.image[rows][:, columns], photo.trimap[rows][:, columns]
    with torch.inference_mode():
        whole = model(
            normalise(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(trimap)[None, None])
        )
    expected = np.rint(whole[0, 0, :50, :70].numpy() * 255).astype(int)
    alpha = predict(model, photo.image, photo.trimap)
    assert alpha.dtype == np.uint8
    assert (alpha[:8] == 0).all()
    assert (alpha[-9:] == 255).all()
    assert np.abs(alpha[8:-9] - expected[8:-9]).max() <= 1
    assert np.ptp(alpha[8:-9]) > 10


def test_an_image_smaller_than_its_padding(live_model: Callable[..., DIM]) -> None:
    photo = _photograph(height=20, width=3)
    assert predict(live_model(), photo.image, photo.trimap).shape == (20, 3)


def test_running_out_of_memory_says_what_to_do() -> None:
    class Huge(DIM):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(InputError, match="dim-export onnx"):
        predict(Huge(NetworkConfig(width=0.125)), *_photograph()[:2])


class _Huge(DIM):
    """A network whose device has no room for more than 5000 pixels, padding included."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] * x.shape[-2] > 5000:
            raise torch.OutOfMemoryError
        return super().forward(x)


def test_validation_predicts_on_the_cpu_what_does_not_fit(live_model: Callable[..., DIM]) -> None:
    model = live_model().to(memory_format=torch.channels_last)
    huge = _Huge(model.config).to(memory_format=torch.channels_last).eval()
    huge.load_state_dict(model.state_dict())
    photographs, notes = [_photograph("a", 40, 40), _photograph("b", 50, 70)], list[str]()
    scores = score_network(huge, photographs, note=notes.append)
    expected = score_network(model, photographs, note=notes.append)
    assert [item.metrics for item in scores] == [item.metrics for item in expected]
    assert notes == ["out of memory on cpu for a photograph of 70×50 px: it is scored on the CPU"]


def test_a_truth_that_contradicts_the_trimap_counts_only_as_published() -> None:
    photo = _photograph()
    truth = photo.alpha.copy()
    truth[0, :10] = 255
    alpha = _red(photo.image, photo.trimap)
    unknown = score("x", alpha, truth, photo.trimap, region=Region.UNKNOWN)
    everything = score("x", alpha, truth, photo.trimap, region=Region.ALL)
    assert everything.metrics == metrics.all_metrics(alpha, truth, photo.trimap)
    assert unknown.metrics == metrics.all_metrics(alpha, photo.alpha, photo.trimap)
    assert everything.sad - unknown.sad == pytest.approx(10 / 1000)


def test_means_are_unweighted(live_model: Callable[..., DIM]) -> None:
    photographs = [_photograph("a", 40, 40, 1), _photograph("b", 80, 100, 2)]
    scores = score_network(live_model(), photographs, note=pytest.fail)
    assert [item.name for item in scores] == ["a", "b"]
    assert all(item.seconds > 0 for item in scores)
    means = mean_scores(scores)
    assert means.sad == pytest.approx((scores[0].sad + scores[1].sad) / 2)
    assert means.conn == pytest.approx((scores[0].conn + scores[1].conn) / 2)
    expected = predict(live_model(), photographs[0].image, photographs[0].trimap)
    assert scores[0].metrics == metrics.all_metrics(expected, photographs[0].alpha, photographs[0].trimap)


def test_workers_change_neither_scores_nor_order(tmp_path: Path) -> None:
    photographs = [_photograph(f"p{i}", 40 + i, 60, i) for i in range(7)]
    alone = list(evaluate(_red, photographs, region=Region.ALL))
    helped = list(evaluate(_red, photographs, region=Region.ALL, workers=2, alphas=tmp_path))
    assert [item.name for item in helped] == [f"p{i}" for i in range(7)]
    assert [item.metrics for item in helped] == [item.metrics for item in alone]
    written = cv2.imread(str(tmp_path / "p3.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, _red(photographs[3].image, photographs[3].trimap))


def test_a_killed_worker_is_an_error() -> None:
    with pytest.raises(DimError, match="worker process was killed"), worker_processes(1, fix="") as pool:
        pool.submit(os._exit, 1).result()
    with pytest.raises(InputError, match="0 or more"), worker_processes(-1, fix=""):
        pass


def test_workers_end_with_a_killed_parent() -> None:
    code = (
        "import os\nfrom dim_training.processes import worker_processes\n"
        "if __name__ == '__main__':\n    with worker_processes(1, fix='') as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n        input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(worker)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_checkpoints_and_artefacts_are_told_apart(live_checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "zip.pth")
    torch.save({"state_dict": {}}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "renamed.bin").write_bytes(b"\x08\x0a\x12\x07pytorch")
    found = {
        path: is_artefact(tmp_path / path)
        for path in ("zip.pth", "legacy.pth", "renamed.bin", "none.onnx", "none.engine", "none.pth")
    }
    assert [path for path, artefact in found.items() if artefact] == [
        "renamed.bin",
        "none.onnx",
        "none.engine",
    ]
    assert not is_artefact(live_checkpoint)


def test_an_artefact_predicts_what_its_checkpoint_does(live_checkpoint: Path, live_artefact: Path) -> None:
    pytest.importorskip("onnxruntime")
    photo = _photograph(height=90, width=75)
    with open_predictor(live_checkpoint) as network, open_predictor(live_artefact, tile=416) as artefact:
        ours, theirs = (predictor(photo.image, photo.trimap).astype(int) for predictor in (network, artefact))
    # A near-tie of a pool may fall to the other side: the share of pixels is judged, not the worst.
    assert (np.abs(ours - theirs) > 1).mean() < 0.01
    assert np.ptp(ours[8:-9]) > 10


def test_scoring_an_artefact_takes_no_torch(live_artefact: Path) -> None:
    pytest.importorskip("onnxruntime")
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
import numpy as np
import dim_training.cli.test
from dim_training.scoring.predictors import open_predictor
with open_predictor(Path({str(live_artefact)!r})) as predictor:
    print(predictor(np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 128, np.uint8)).dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "uint8", done.stderr


def test_without_the_engine_the_extra_is_named(live_artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[cpu\]"), open_predictor(live_artefact):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 512}, "dim-export onnx"),
        ({"device": "tpu"}, '"cpu", "cuda" or "cuda:N"'),
        ({"device": "cpu:1"}, '"cpu", "cuda" or "cuda:N"'),
        ({"device": "cuda:99"}, "CUDA devices"),
    ],
)
def test_options_that_a_checkpoint_cannot_have(
    options: dict[str, Any], message: str, live_checkpoint: Path
) -> None:
    with pytest.raises(DimError, match=message), open_predictor(live_checkpoint, **options):
        pass


def test_full_precision_is_on_while_a_network_is_open(live_checkpoint: Path) -> None:
    before = torch.backends.cudnn.allow_tf32
    with open_predictor(live_checkpoint):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before
