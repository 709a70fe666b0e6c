"""``dim-train test`` from the command line: table, files, errors, and several processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from dim import checkpoint
from dim.errors import DimError, InputError
from dim.files import sha256
from dim_training.cli import test
from dim_training.scoring.distributed import Ranks

app = typer.Typer()
app.command("test")(test.score)

PROGRAM = """
import typer
from dim import cli_support
from dim_training.cli import test
app = typer.Typer()
app.command("test")(test.score)
if __name__ == "__main__":
    cli_support.run(app)
"""


@pytest.fixture(scope="module")
def small(live_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a very small network."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    checkpoint.save(live_model(stage=1), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs; a corner of each truth contradicts the trimap."""
    root = tmp_path_factory.mktemp("scored") / "data"
    draw = np.random.default_rng(0)
    for index in range(5):
        height, width = 40 + 9 * index, 70 - 8 * index
        trimap = np.full((height, width), 128, np.uint8)
        trimap[:9], trimap[-9:] = 0, 255
        alpha = draw.integers(0, 256, (height, width), np.uint8)
        alpha[:9], alpha[-9:], alpha[0, :9] = 0, 255, 255
        image = draw.integers(0, 256, (height, width, 3), np.uint8)
        for kind, array in (("images", image), ("trimaps", trimap), ("alphas", alpha)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / kind / f"photo{index}.png"), array)
    return root


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def _table(text: str) -> list[list[str]]:
    """Return the cells of the rows; the first row holds the columns' names."""
    rows = [line for line in text.splitlines() if line[:1] in "┃│"]
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in rows]


def test_the_table_and_the_files_tell_the_same(small: Path, folder: Path, tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "out" / "a.csv", "--report", tmp_path / "out" / "a.json")
    text = _run(small, "--data", folder, *files, "--alphas", tmp_path / "alphas")
    columns, *rows, means = _table(text)
    assert columns == ["photograph", "SAD", "MSE", "GRAD", "CONN"]
    assert [row[0] for row in rows] == [f"photo{i}" for i in range(5)]
    assert "small.safetensors: 5 photographs" in text

    with (tmp_path / "out" / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["name", "sad", "mse", "grad", "conn", "seconds"]
    assert [f"{float(line['sad']):.2f}" for line in lines] == [row[1] for row in rows]

    document = json.loads((tmp_path / "out" / "a.json").read_text())
    assert document["region"] == "unknown"
    assert document["sha256"] == sha256(small)
    assert document["mean"]["sad"] == pytest.approx(np.mean([float(line["sad"]) for line in lines]))
    assert means[1:3] == [f"{document['mean']['sad']:.3f}", f"{document['mean']['mse']:.5f}"]
    assert [item["name"] for item in document["scores"]] == [row[0] for row in rows]

    written = sorted(path.name for path in (tmp_path / "alphas").iterdir())
    assert written == [f"photo{i}.png" for i in range(5)]
    alpha = cv2.imread(str(tmp_path / "alphas" / "photo1.png"), cv2.IMREAD_UNCHANGED)
    assert alpha.dtype == np.uint8
    assert alpha.shape == (49, 62)


@pytest.mark.parametrize("option", ["--csv", "--report", "--alphas"])
def test_no_output_replaces_what_is_scored(small: Path, folder: Path, tmp_path: Path, option: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    model = Path(shutil.copy(small, tmp_path / "model.safetensors"))
    before = {path: sha256(path) for path in [model, *data.rglob("*.png")]}
    targets = [data / "alphas", data / "images"] if option == "--alphas" else [data / "alphas" / "photo1.png"]
    targets += [model] if option == "--csv" else []
    for target in targets:
        with pytest.raises(InputError, match=r"one of the inputs|no report"):
            _run(model, "--data", data, option, target)
    assert {path: sha256(path) for path in before} == before


def test_a_network_that_computes_nan_has_no_score(small: Path, folder: Path, tmp_path: Path) -> None:
    model = checkpoint.load(small)
    with torch.no_grad():
        model.backbone.decoder.deconv1.bias.fill_(torch.nan)
    checkpoint.save(model, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="NaN"):
        _run(tmp_path / "nan.safetensors", "--data", folder)


def test_annotations_count_all_pixels_and_folders_unknown_ones(small: Path, folder: Path) -> None:
    files = (("merged", "images"), ("trimap", "trimaps"), ("alpha", "alphas"))
    rows = [{f"{key}_path": f"{kind}/photo{i}.png" for key, kind in files} for i in range(5)]
    annotations = folder.parent / "test_list.json"
    annotations.write_text(json.dumps(rows))
    unknown = _run(small, "--data", folder, "--workers", 0)
    published = _run(small, "--data", annotations, "--data-root", folder, "--workers", 0)
    assert "unknown pixels" in " ".join(unknown.split())
    assert "all pixels, as published" in " ".join(published.split())
    forced = _run(small, "--data", folder, "--region", "all", "--workers", 0)
    assert _table(forced) == _table(published)
    # Nine pixels of truth that the trimap contradicts.
    assert float(_table(published)[-1][1]) - float(_table(unknown)[-1][1]) == pytest.approx(0.009, abs=1e-3)


def test_an_artefact_scores_like_its_checkpoint(live_artefact: Path, folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    checkpoint_file = live_artefact.with_suffix(".safetensors")
    ours = _table(_run(checkpoint_file, "--data", folder, "--workers", 0))
    theirs = _table(_run(live_artefact, "--data", folder, "--workers", 0, "--tile", 448))
    assert float(theirs[-1][1]) == pytest.approx(float(ours[-1][1]), rel=0.01)


def test_of_many_photographs_the_table_shows_the_means(
    small: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dim_training.scoring.report.SHOWN", 4)
    assert [row[0] for row in _table(_run(small, "--data", folder, "--workers", 0))] == ["photograph", "mean"]


def test_everything_that_is_damaged_is_listed_before_any_prediction(
    small: Path, folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for path in folder.rglob("*.png"):
        target = data / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name in ("images/photo1.png", "alphas/photo3.png"):
        (data / name).write_bytes((data / name).read_bytes()[:-30])
    with pytest.raises(DimError) as caught:
        _run(small, "--data", data, "--alphas", tmp_path / "alphas")
    assert "2 problems" in str(caught.value)
    assert "images/photo1.png" in str(caught.value)
    assert "alphas/photo3.png" in str(caught.value)
    assert not (tmp_path / "alphas").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("none.safetensors", (), "no such file"),
        ("small", ("--sha256", "0" * 64), "its SHA-256 does not match"),
        ("small", ("--tile", 512), "dim-export onnx"),
        ("small", ("--device", "cuda:99"), "cuda:99"),
        ("small", ("--workers", -1), "0 or more"),
        ("small", ("--csv", "."), "cannot write"),
        ("http://example.org/model-01234567.pth", (), "https"),
        ("https://example.org/model.pth", (), "--sha256"),
    ],
)
def test_wrong_use_is_told_in_parts(
    model: str, options: tuple[object, ...], message: str, small: Path, folder: Path
) -> None:
    with pytest.raises(DimError, match=message) as caught:
        _run(small if model == "small" else model, "--data", folder, *options)
    assert caught.value.exit_code == 2


def test_a_cached_download_is_scored(
    small: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = tmp_path / "dim-matting" / sha256(small)[:8] / "tiny.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(small.read_bytes())
    url = "https://absent.invalid/tiny.safetensors"
    text = _run(url, "--sha256", sha256(small), "--data", folder, "--workers", 0)
    assert _table(text) == _table(_run(small, "--data", folder, "--workers", 0))


def _launched(program: Path, processes: int, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    address = ["--master_addr=127.0.0.1", f"--master_port={port}"]
    command = [sys.executable, *(launcher + address if processes > 1 else []), program, *arguments]
    # One thread each: the same arithmetic whatever the number of processes.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
def test_two_processes_print_the_table_of_one(small: Path, folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    one, two = (
        _launched(
            program, n, [small, "--data", folder, "--csv", files / "a.csv", "--alphas", files / "alphas"]
        )
        for n, files in ((1, tmp_path / "1"), (2, tmp_path / "2"))
    )
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout
    assert len(_table(two.stdout)) == 7
    assert len(list((tmp_path / "2" / "alphas").iterdir())) == 5
    lines = [(tmp_path / str(n) / "a.csv").read_text().splitlines() for n in (1, 2)]
    without_seconds = [[line.rpartition(",")[0] for line in part] for part in lines]
    assert without_seconds[0] == without_seconds[1]


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    alone = Ranks.from_environment()
    assert alone == Ranks()
    assert alone.gather_items(alone.mine("abc")) == ["a", "b", "c"]
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    among = Ranks.from_environment()
    assert among == Ranks(5, 8, 1, 4)
    assert among.mine(range(20)) == range(5, 20, 8)


def test_saved_alphas_score_like_the_network_that_made_them(
    small: Path, folder: Path, tmp_path: Path
) -> None:
    model = _run(small, "--data", folder, "--workers", 0, "--alphas", tmp_path / "alphas")
    report = tmp_path / "report.json"
    options = ("--predictions", tmp_path / "alphas", "--data", folder, "--workers", 0)
    assert _table(_run(*options, "--report", report)) == _table(model)
    document = json.loads(report.read_text())
    assert document["predictions"] == str(tmp_path / "alphas")
    assert "model" not in document


def test_known_pixels_of_saved_alphas_are_set_from_the_trimap(folder: Path, tmp_path: Path) -> None:
    for path in sorted((folder / "alphas").iterdir()):
        alpha = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        alpha[:9], alpha[-9:] = 90, 90
        (tmp_path / "saved").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "saved" / f"{path.stem}.tif"), alpha)
    means = _table(_run("--predictions", tmp_path / "saved", "--data", folder, "--workers", 0))[-1]
    assert means[1:] == ["0.000", "0.00000", "0.000", "0.000"]


def test_saved_alphas_that_are_missing_or_of_another_size_are_errors(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    options = ("--predictions", saved, "--data", folder, "--workers", 0)
    with pytest.raises(DimError, match="saved"):
        _run(*options)
    saved.mkdir()
    for index in range(4):
        cv2.imwrite(str(saved / f"photo{index}.png"), np.zeros((7, 5), np.uint8))
    cv2.imwrite(str(saved / "photo0.tif"), np.zeros((7, 5), np.uint8))
    with pytest.raises(DimError) as error:
        _run(*options)
    assert "no photo4.* in" in str(error.value)
    assert "2 files for photo0" in str(error.value)
    (saved / "photo0.tif").unlink()
    (saved / "photo3.png").rename(saved / "photo4.png")
    cv2.imwrite(str(saved / "photo3.png"), np.zeros((7, 5), np.uint8))
    with pytest.raises(DimError, match=r"photo0\.png(.|\n)*5×7 px(.|\n)*70×40 px"):
        _run(*options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "neither a model nor --predictions"),
        (("model.onnx", "--predictions", "saved"), "a model and --predictions"),
        (("--predictions", "saved", "--tile", 512, "--alphas", "new"), "--tile, --alphas with --predictions"),
    ],
)
def test_one_source_of_alphas_is_required(folder: Path, options: tuple[object, ...], text: str) -> None:
    with pytest.raises(DimError, match=text):
        _run(*options, "--data", folder)
