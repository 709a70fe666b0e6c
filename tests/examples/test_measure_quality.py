"""The command behind docs/models/benchmark.md, with drawn photographs, and fakes in place of slow methods."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim.metrics import Metrics
from dim_runtime.backends.open import default_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("jinja2")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module("measure_quality")


@pytest.fixture
def part(command: ModuleType) -> Any:
    """Import another file of the example."""
    return lambda name: import_module(f"quality_{name}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs of 40 × 60 pixels, their middle unknown; more of it in the wide trimaps."""
    root, draw = tmp_path / "photos", np.random.default_rng(0)
    for index in range(2):
        narrow = np.zeros((40, 60), np.uint8)
        narrow[:, 20:40], narrow[:, 40:] = 128, 255
        wide = np.where(np.arange(60) < 10, 0, 128).astype(np.uint8)[None].repeat(40, axis=0)
        alpha = np.where(narrow == 128, draw.integers(0, 256, narrow.shape), narrow).astype(np.uint8)
        image = draw.integers(0, 256, (40, 60, 3), np.uint8)
        arrays = {"images": image, "trimaps": narrow, "trimaps_wide": wide, "alphas": alpha}
        for folder, array in arrays.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / f"photo{index}.png"), array)
    return root


def _given(command: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Namespace:
    monkeypatch.setattr(sys, "argv", ["measure_quality.py", *map(str, arguments)])
    given: Namespace = command.arguments()
    return given


def _half_sad(photos: Path, name: str, trimaps: str = "trimaps") -> float:
    alpha, trimap = (
        cv2.imread(str(photos / kind / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for kind in ("alphas", trimaps)
    )
    return float(np.abs(alpha[trimap == 128] / 255 - 128 / 255).sum() / 1000)


def test_a_run_measures_once_writes_the_page_and_measures_again_what_changed(
    command: ModuleType, part: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    real = subprocess.run

    def counted(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        started.append(arguments)
        return real(arguments, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    page, half = tmp_path / "docs" / "page.md", part("methods").HALF
    given = _given(command, monkeypatch, photos, "-o", tmp_path / "out", "--page", page, "--methods", half)
    command.run(given)
    assert len(started) == 4  # two photographs, two trimaps; nothing is exported for this method

    text = page.read_text()
    sads = [_half_sad(photos, f"photo{index}") for index in range(2)]
    wide = [_half_sad(photos, f"photo{index}", "trimaps_wide") for index in range(2)]
    row = next(line for line in text.splitlines() if line.startswith(f"| {half}"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2] == f"{np.mean(sads):.2f}"
    assert cells[-2] == f"{np.mean(wide):.2f}"
    assert "2 photographs" in text
    assert "{" not in text
    assert not list(tmp_path.rglob("*.jpg"))  # closed form was not measured: nothing to compare

    result = part("process").Result.model_validate_json(
        (tmp_path / "out" / "narrow" / half / "photo0.json").read_text()
    )
    assert result.metrics.sad == pytest.approx(sads[0])
    assert len(result.seconds) == 1
    assert result.peak_bytes >= result.held_bytes > 0

    part("process")._digest.cache_clear()
    command.run(given)
    assert len(started) == 4
    cv2.imwrite(str(photos / "alphas" / "photo1.png"), np.full((40, 60), 128, np.uint8))
    part("process")._digest.cache_clear()
    command.run(given)
    assert len(started) == 6


def test_the_page_shows_the_lemur_alone_and_names_the_hardest(
    command: ModuleType, part: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(task: Any) -> Any:
        trimap = cv2.imread(str(task.trimap), cv2.IMREAD_GRAYSCALE)
        task.output.mkdir(parents=True, exist_ok=True)
        ours = task.method.name == command.OURS
        cv2.imwrite(str(task.alpha_file), np.where(trimap == 128, 255 if ours else 0, trimap))
        sad = 3.0 if ours and task.name == "photo1" else 1.0
        return _result(part, sad=sad)

    monkeypatch.setattr(command, "result_of", fake)
    monkeypatch.setattr(command, "require_artefact", lambda *_: None)
    page = tmp_path / "docs" / "page.md"
    command.run(_given(command, monkeypatch, photos, "-o", tmp_path / "out", "--page", page))
    text = page.read_text()
    assert "the largest excess is +2.00 (photo1)" in text
    assert "photo1, photo0" in text
    assert "](page_lemur.jpg)" in text
    assert sorted(path.name for path in page.parent.iterdir()) == ["page.md", "page_lemur.jpg"]
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["photo0.jpg", "photo1.jpg"]
    assert cv2.imread(str(pictures[0])).shape == (34 + 2 * 320, 6 * 480, 3)


def test_one_call_comes_first_and_the_others_are_timed(
    command: ModuleType, part: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, methods = part("process"), part("methods")
    seen = []

    class Opened:
        def __enter__(self) -> Any:
            return lambda image, trimap: seen.append(image.shape) or trimap

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(process, "opened", lambda method, threads: Opened())
    files = {
        kind: photos / folder / "photo0.png" for kind, folder in (("image", "images"), ("trimap", "trimaps"))
    }
    task = process.Task(
        name="photo0",
        method=methods.Method(name="fake"),
        **files,
        truth=None,
        runs=3,
        threads=1,
        output=tmp_path,
    )
    alpha, result = process.measure(task)
    assert seen == [(128, 160, 3), *[(40, 60, 3)] * 4]
    assert len(result.seconds) == 3
    assert result.metrics is None
    assert alpha.shape == (40, 60)
    assert task.key() != task.model_copy(update={"threads": 2}).key()


def test_artefacts_of_other_weights_or_precision_are_refused(
    command: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    embedded = default_model()
    given = _given(command, monkeypatch, photos, "--checkpoint", other, "--fp32", embedded)
    with pytest.raises(InputError, match="beside"):
        command.require_artefact(embedded, "fp32", given)
    given = _given(command, monkeypatch, photos, "--int8", embedded)
    assert command.artefacts(given) == {"fp32": embedded, "int8": embedded}
    command.require_artefact(embedded, "fp32", given)
    with pytest.raises(InputError, match="fp32 of the checkpoint"):
        command.require_artefact(embedded, "int8", given)


def test_a_photograph_or_method_that_is_not_there_is_named(
    command: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option, name in (("--only", "photo7"), ("--methods", "magic")):
        with pytest.raises(InputError, match=name):
            command.run(_given(command, monkeypatch, photos, "-o", tmp_path / "out", option, name))
    (photos / "trimaps_wide" / "photo1.png").unlink()
    with pytest.raises(InputError, match=r"trimaps_wide/photo1\.png"):
        command.run(_given(command, monkeypatch, photos, "-o", tmp_path / "out"))


def _result(part: Any, *, sad: float, seconds: float = 1.0, megapixels: float = 0.5, own: int = 10**7) -> Any:
    return part("process").Result(
        key="", megapixels=megapixels, metrics=Metrics(sad, 0.01, 2.0, 3.0), first_s=2 * seconds,
        seconds=(seconds,), held_bytes=10**8, peak_bytes=10**8 + own,
    )  # fmt: skip


def test_tables_tell_shifts_excess_and_the_largest_memory(part: Any) -> None:
    tables, methods = part("tables"), part("methods")
    narrow = {
        methods.REFERENCE: {"a": _result(part, sad=2), "b": _result(part, sad=4)},
        methods.OURS: {
            "a": _result(part, sad=2, seconds=1, megapixels=1),
            "b": _result(part, sad=4.3, seconds=3, megapixels=3, own=7 * 10**7),
        },
        methods.CLOSED_FORM: {"a": _result(part, sad=1), "b": _result(part, sad=5)},
    }
    wide = {methods.OURS: {"a": _result(part, sad=9), "b": _result(part, sad=10)}}
    lines = tables.scores(narrow, wide).splitlines()
    assert lines[2] == "| PyTorch fp32 | 3.00 | 0.0100 | 2.00 | 3.00 | | |"
    assert lines[3] == "| ONNX Runtime fp32 | 3.15 | 0.0100 | 2.00 | 3.00 | +5.00 % | 9.50 |"
    assert lines[4] == "| closed form | 3.00 | 0.0100 | 2.00 | 3.00 | | |"
    assert tables.costs(narrow).splitlines()[3] == "| ONNX Runtime fp32 | 2.00 | 1.00 | 2.00 | 70 | 170 |"
    rows = tables.photographs(narrow).splitlines()
    assert rows[0] == "| photograph | ONNX Runtime fp32 | closed form | excess |"
    assert rows[2:] == [
        "| a | 2.00 | 1.00 | +1.00 |",
        "| b | 4.30 | 5.00 | -0.70 |",
        "| mean | 3.15 | 3.00 | +0.15 |",
    ]
    assert tables.verdict(narrow).startswith("SAD is lower than closed form's on 1 of 2 photographs")
    assert "+1.00 (a)" in tables.verdict(narrow)


def test_the_worst_part_is_found_and_its_sign_has_a_colour(part: Any) -> None:
    pictures = part("pictures")
    truth = np.full((80, 120), 100, np.uint8)
    alpha = truth.copy()
    alpha[50:60, 100:110], alpha[5, 5] = 200, 0
    rows, columns = pictures.worst_part(cv2.absdiff(alpha, truth))
    assert rows.start <= 50 < 60 <= rows.stop
    assert columns.start <= 100 < 110 <= columns.stop
    assert (rows.stop - rows.start, columns.stop - columns.start) == (20, 30)
    colours = pictures.signed_difference(alpha, truth)
    assert colours[0, 0].tolist() == [255, 255, 255]
    assert colours[55, 105].tolist() == [255, 155, 155]
    assert colours[5, 5].tolist() == [155, 155, 255]
