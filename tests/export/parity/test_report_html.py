"""The HTML report is complete and self-contained, and its pictures show what their captions state."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from dim.contract import NetworkConfig
from dim_export.measure.environment import environment
from dim_export.parity.comparison import VISIBLE, Difference, Errors
from dim_export.parity.gates import Measure, gates_for
from dim_export.parity.heat_map import NAN_COLOUR, gray_picture, heat_map, worst_window
from dim_export.parity.other_tools import ToolResult
from dim_export.parity.report import ArtefactReport, Release, ReleaseReport, RoundingResult, Speed
from dim_export.parity.report_html import data_uri, percent, render, shots, signed, small
from dim_export.parity.result import CaseResult, ParityReport
from dim_runtime.images.pairs import MattingSample

UNCLOSED = {"meta", "img", "br"}


def _sample() -> MattingSample:
    image = np.zeros((300, 200, 3), np.uint8)
    return MattingSample(image, np.full((300, 200), 128, np.uint8), name="a case")


@pytest.fixture
def alphas() -> tuple[np.ndarray, np.ndarray]:
    """Return a reference, and an alpha that differs in a square of 10 px around y = 250, x = 30."""
    reference = np.full((300, 200), 0.5, np.float32)
    found = reference.copy()
    found[245:255, 25:35] = 0.75
    return reference, found


def test_the_worst_window_is_found(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    snapshot = worst_window(_sample(), *alphas, side=64)
    assert snapshot.difference.shape == (64, 64)
    assert snapshot.total == pytest.approx(25)
    assert snapshot.y <= 245 <= 255 <= snapshot.y + 64
    assert snapshot.x <= 25 <= 35 <= snapshot.x + 64


def test_known_pixels_do_not_count(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    sample = _sample()
    sample.trimap[200:] = 255
    assert worst_window(sample, *alphas).total == 0


def test_a_nan_is_worst_of_all(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    alphas[1][5, 5] = np.nan
    snapshot = worst_window(_sample(), *alphas, side=32)
    assert snapshot.total == np.inf
    assert snapshot.reference.shape == (32, 32)


def test_the_heat_map_ends_at_the_largest_difference() -> None:
    colours, top = heat_map(np.array([[0, 0.2, 0.4, np.nan]]))
    assert top == 0.4
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, 2].tolist() == [255, 255, 255]
    assert colours[0, 1, 0] == 255  # red before blue
    assert colours[0, 1, 2] == 0
    assert tuple(colours[0, 3]) == NAN_COLOUR


def test_an_invisible_difference_stays_dark() -> None:
    colours, top = heat_map(np.array([[0, 1e-6]]))
    assert top == VISIBLE
    assert colours.max() == 0


def test_gray_pictures() -> None:
    picture = gray_picture(np.array([[0, 0.5, 1, np.nan]]))
    assert picture[0, :, 1].tolist() == [0, 128, 255, 0]
    assert tuple(picture[0, 3]) == NAN_COLOUR


def test_a_picture_survives_its_uri() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    head, _, content = data_uri(picture).partition(",")
    assert head == "data:image/png;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    assert (decoded[..., ::-1] == picture).all()


def test_numbers_as_text() -> None:
    assert [percent(value) for value in (None, float("nan"), 0.00123)] == ["-", "NaN", "0.123%"]
    assert [signed(value) for value in (None, float("nan"), 0.05)] == ["-", "NaN", "+5.00%"]
    assert [small(value) for value in (None, float("nan"), 0.0123)] == ["-", "NaN", "1.23e-02"]


class _Reader(HTMLParser):
    """Holds a document to what a self-contained page must be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action")]
        assert tag not in ("script", "link", "iframe")
        if tag not in UNCLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _document(release: Release) -> _Reader:
    reader = _Reader()
    reader.feed(render(release))
    reader.close()
    assert reader.open == []
    return reader


def _difference(share: float) -> dict[str, float]:
    return Difference(
        unknown_pixels=10, share_beyond=share, mean_difference=0.001, max_difference=0.5, sad=0.1,
        nan_pixels=0, spread=0.3,
    ).model_dump()  # fmt: skip


def _release(alphas: tuple[np.ndarray, np.ndarray], share: float) -> Release:
    errors = Errors(sad=1, mse=2, grad=3, conn=4)
    case = CaseResult(
        name="<b>case", height=10, width=20, tile=1536, windows=1, **_difference(share),
        against_float64=_difference(0.2), truth={"reference": errors, "artefact": errors},
    )  # fmt: skip
    parity = ParityReport(
        checkpoint="net.pth", artefact="net.onnx", precision="fp32", engine="fake 1", device="cpu",
        checkpoint_sha256="12", recorded_sha256="34", gates=gates_for("fp32"), cases=(case,),
        left_out=("too big",), not_finite=("net.onnx: conv.bias",) if share else (),
        node_outputs=4, tools=(
            ToolResult(tool="a tool", version="1.2", measure=Measure.SLIMMED, height=3, width=4,
                       difference=_difference(share), changed_known=0),
            ToolResult(tool="another", measure=Measure.HALF_WEIGHTS, skipped="it is not installed"),
        ),
    )  # fmt: skip
    snapshot = worst_window(_sample(), *alphas)
    artefact = ArtefactReport(
        bytes=10**6, sha256="56", command="dim-export onnx", parity=parity,
        worst={"case": "a case", "y": 1, "x": 2, "height": 3, "width": 4, "max_difference": 0.25},
        speed=Speed(height=64, width=96, runs_s=(0.5, 0.7, 0.6), times_faster=1),
    )  # fmt: skip
    report = ReleaseReport(
        made_at="now", command="dim-export verify", environment=environment(1), checkpoint="net.pth",
        checkpoint_sha256="12", network=NetworkConfig(), artefacts=(artefact, artefact),
        rounding=(RoundingResult(name="a", **_difference(0.1)),),
    )  # fmt: skip
    return Release(report, (snapshot, None))


def test_the_document_is_whole_and_fetches_nothing(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    reader = _document(_release(alphas, 0.0))
    assert len(reader.addresses) == 5
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    text = " ".join(" ".join(reader.text).split())
    for expected in (
        "Passed", "<b>case", "not counted", "0.600 s", "left out: too big",
        "which is not the one compared with", "The effect of rounding alone", "beyond 1/255 of fp64",
        "Against the truth", "+0.00%", "a tool 1.2", "skipped: it is not installed",
    ):  # fmt: skip
        assert expected.lower() in text.lower(), expected


def test_a_failure_is_said_first(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    text = " ".join(" ".join(_document(_release(alphas, 0.5)).text).split())
    assert text.index("Failed: net.onnx, net.onnx") < text.index("Artefacts")
    assert "NaN or infinite values in the tensor net.onnx: conv.bias" in text
    assert "Passed" not in text


def test_five_pictures_show_the_worst_window(alphas: tuple[np.ndarray, np.ndarray]) -> None:
    found = shots(worst_window(_sample(), *alphas, side=64))
    assert [shot.caption.partition(":")[0] for shot in found] == [
        "image", "trimap", "PyTorch", "artefact", "difference",
    ]  # fmt: skip
    assert {(shot.width, shot.height) for shot in found} == {(128, 128)}
