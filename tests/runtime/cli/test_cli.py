"""``dim-matte`` as a user runs it: files, exit codes, messages without tracebacks, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

import dim
from dim.images.files import read_alpha, read_image, write_image
from dim_runtime.backends.open import default_model
from dim_runtime.cli import main
from dim_runtime.images.samples import sample_paths


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Matte = Callable[..., Done]


@pytest.fixture
def matte(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Matte:
    """Return a function that calls the entry point; an exception that leaves it fails the test."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["dim-matte", *map(str, arguments)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, *capsys.readouterr())

    return call


def process(*arguments: object) -> Done:
    """Return a function that runs the command in its own process."""
    command = [sys.executable, "-c", "from dim_runtime.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a small cut of the lemur and its trimap."""
    image, trimap = sample_paths()
    write_image(tmp_path / "image.png", read_image(image)[60:190, 200:360])
    write_image(tmp_path / "trimap.png", read_alpha(trimap)[60:190, 200:360])
    return tmp_path / "image.png", tmp_path / "trimap.png"


@pytest.fixture
def runs() -> None:
    pytest.importorskip("onnxruntime")


@pytest.mark.usefixtures("runs")
def test_one_image(matte: Matte, files: tuple[Path, Path], tmp_path: Path) -> None:
    done = matte("run", *files, "-o", tmp_path / "out" / "alpha.png")
    assert done.returncode == 0, done.stderr
    for word in ("megapixels/s", "s with reading, rendering and writing", "1 window", "cost", "peak"):
        assert word in done.stdout
    alpha = cv2.imread(str(tmp_path / "out" / "alpha.png"), cv2.IMREAD_UNCHANGED)
    trimap = read_alpha(files[1])
    assert (alpha.dtype, alpha.shape) == (np.uint8, trimap.shape)
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 255).all()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("out", "channels"), [("cutout", 4), ("composite", 3)])
def test_cutouts_and_composites(
    matte: Matte, files: tuple[Path, Path], tmp_path: Path, out: str, channels: int
) -> None:
    result = tmp_path / "out.tif"
    options = ("--out", out, "--foreground", "image", "--background", "#102030", "--depth", 16)
    if out == "cutout":
        options = (*options[:4], *options[6:])
    done = matte("run", *files, "-o", result, *options)
    assert done.returncode == 0, done.stderr
    image = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)
    assert (image.dtype, image.shape[2]) == (np.uint16, channels)
    if out == "composite":
        assert (image[read_alpha(files[1]) == 0] == np.array([0x30, 0x20, 0x10]) * 257).all()


def test_a_dry_run_computes_and_writes_nothing(
    matte: Matte, files: tuple[Path, Path], tmp_path: Path, runs: None
) -> None:
    done = matte("run", *files, "-o", tmp_path / "alpha.png", "--dry-run", "--memory-limit", "1TB")
    assert done.returncode == 0, done.stderr
    assert "planned peak" in done.stdout
    assert not (tmp_path / "alpha.png").exists()


@pytest.mark.parametrize("options", [("--memory-limit", "1MB"), ("-o", "a.xyz")], ids=["memory", "suffix"])
def test_a_dry_run_is_refused_as_the_run_is(
    matte: Matte, files: tuple[Path, Path], tmp_path: Path, runs: None, options: tuple[str, str]
) -> None:
    given = ("run", *files, "-o", tmp_path / "cutout.png", "--out", "cutout", *options)
    dry, real = matte(*given, "--dry-run"), matte(*given)
    assert dry.returncode == real.returncode == 2
    # What the process holds varies a little from run to run.
    assert dry.stderr.splitlines()[0] == real.stderr.splitlines()[0]


def test_a_dry_run_reads_the_image(matte: Matte, files: tuple[Path, Path], tmp_path: Path) -> None:
    files[0].write_bytes(b"no image")
    done = matte("run", *files, "-o", tmp_path / "alpha.png", "--dry-run")
    assert done.returncode == 2
    assert "not an image" in done.stderr


@pytest.fixture
def folder(files: tuple[Path, Path], tmp_path: Path) -> Path:
    for name in ("images", "trimaps"):
        (tmp_path / name).mkdir()
    for stem in ("a", "b"):
        shutil.copy(files[0], tmp_path / "images" / f"{stem}.png")
        shutil.copy(files[1], tmp_path / "trimaps" / f"{stem}.png")
    return tmp_path


@pytest.mark.usefixtures("runs")
def test_a_folder(matte: Matte, folder: Path) -> None:
    done = matte("run", folder, "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "2 done, 0 failed" in done.stdout
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["a.png", "b.png"]


@pytest.mark.usefixtures("runs")
def test_a_bad_item_does_not_stop_the_rest(matte: Matte, folder: Path) -> None:
    (folder / "images" / "a.png").write_bytes(b"no image")
    shutil.copy(folder / "trimaps" / "b.png", folder / "trimaps" / "c.png")
    done = matte("run", folder / "images", folder / "trimaps", "-o", folder / "out")
    assert done.returncode == 1
    assert "1 done, 2 failed" in done.stdout
    assert "failed a" in done.stderr
    assert "failed c" in done.stderr
    assert [file.name for file in (folder / "out").iterdir()] == ["b.png"]


def cut_model(path: Path) -> Path:
    path.write_bytes(default_model().read_bytes()[:100_000])
    return path


BAD_INPUT: dict[str, Callable[[Path], dict[str, object]]] = {
    "no such file": lambda folder: {"image": folder / "none.png"},
    "not an image": lambda folder: {"trimap": text_file(folder / "text.png")},
    "of one size": lambda folder: {"trimap": plain(folder / "small.png", (9, 9))},
    "suffix '.jpg'": lambda folder: {"-o": folder / "alpha.jpg"},
    "why: JPEG and WebP hold composites only": lambda folder: {"-o": folder / "alpha.webp"},
    "cut off": lambda folder: {"--model": cut_model(folder / "cut.onnx")},
    "not an ONNX file": lambda folder: {"--model": text_file(folder / "text.onnx")},
    "no such file ": lambda folder: {"--model": folder / "none.onnx"},
    "cuda:N": lambda _: {"--device": "gpu"},
    "multiple of 32": lambda _: {"--tile": 100},
    "exact, or a number": lambda _: {"--context": "much"},
    "such as 2GB": lambda _: {"--memory-limit": "lots"},
    "at least": lambda _: {"--memory-limit": "1MB"},
    "max_pixels": lambda _: {"--max-pixels": 100},
    "#RRGGBB": lambda _: {"--out": "composite", "--foreground": "image", "--background": "#12"},
    "threads": lambda _: {"--threads": 0},
}


def text_file(path: Path) -> Path:
    path.write_text("some text")
    return path


def plain(path: Path, shape: tuple[int, int]) -> Path:
    write_image(path, np.full(shape, 128, np.uint8))
    return path


@pytest.mark.parametrize("message", BAD_INPUT)
@pytest.mark.usefixtures("runs")
def test_bad_input_gives_exit_code_2_and_no_file(
    matte: Matte, message: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    options: dict[str, object] = {"image": files[0], "trimap": files[1], "-o": tmp_path / "alpha.png"}
    options |= BAD_INPUT[message](tmp_path)
    before = sorted(tmp_path.iterdir())
    done = matte(
        "run",
        options.pop("image"),
        options.pop("trimap"),
        *(part for item in options.items() for part in item),
    )
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert message.strip() in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_option_gives_exit_code_2(matte: Matte, files: tuple[Path, Path], tmp_path: Path) -> None:
    assert matte("run", *files, "-o", tmp_path / "alpha.png", "--colour", "red").returncode == 2


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--backend", "torch", ("onnxruntime", "openvino", "tensorrt")),
        ("--precision", "int4", ("fp32", "fp16", "bf16", "int8")),
        ("--depth", "12", ("8", "16")),
        ("--out", "mask", ("alpha", "cutout", "composite")),
    ],
)
def test_an_unknown_choice_lists_the_choices(
    matte: Matte, files: tuple[Path, Path], tmp_path: Path, option: str, value: str, choices: tuple[str, ...]
) -> None:
    done = matte("run", *files, "-o", tmp_path / "alpha.png", option, value)
    assert done.returncode == 2
    assert all(f"'{choice}'" in done.stderr for choice in choices)
    assert not (tmp_path / "alpha.png").exists()


@pytest.mark.parametrize("command", ["run", "batch", "bench", "trimap", "doctor"])
def test_every_command_has_help_with_an_example(matte: Matte, command: str) -> None:
    done = matte(command, "-h")
    assert done.returncode == 0
    assert f"dim-matte {command} " in done.stdout
    assert "Example: " in done.stdout


def test_the_version(matte: Matte) -> None:
    done = matte("--version")
    assert (done.returncode, done.stdout) == (0, f"dim-matte {dim.__version__}\n")


def test_completion_can_be_printed() -> None:
    # --show-completion looks for the shell among its parent processes, where a test may have none.
    code = "import sys; sys.argv[0] = 'dim-matte'; from dim_runtime.cli import main; main()"
    environment = {**os.environ, "_DIM_MATTE_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "_DIM_MATTE_COMPLETE=complete_bash" in done.stdout


@pytest.mark.usefixtures("runs")
def test_quiet_prints_nothing_and_verbose_what_happens(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = process("run", *files, "-o", tmp_path / "alpha.png", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = process("--verbose", "run", *files, "-o", tmp_path / "alpha.png", "--quiet")
    assert "opened" in done.stderr
    assert "px, 1 windows, " in done.stderr


def test_a_file_and_a_folder_do_not_pair(matte: Matte, files: tuple[Path, Path], tmp_path: Path) -> None:
    done = matte("run", files[0], tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "two folders" in done.stderr


def test_estimated_colours_without_the_extra_name_it(
    matte: Matte, monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)
    done = matte("run", *files, "-o", tmp_path / "cut.png", "--out", "cutout")
    assert done.returncode == 2
    assert "dim-matting[cutout]" in done.stderr
    assert "--foreground image" in done.stderr
    assert not (tmp_path / "cut.png").exists()


@pytest.mark.usefixtures("runs")
def test_mapped_trimap_pixels_are_a_warning(matte: Matte, files: tuple[Path, Path], tmp_path: Path) -> None:
    trimap = read_alpha(files[1])
    write_image(files[1], np.where(trimap == 128, 100, trimap).astype(np.uint8))
    done = matte("run", *files, "-o", tmp_path / "alpha.png")
    assert done.returncode == 0
    assert done.stderr.count("warning: ") == 1


def test_a_trimap_of_a_mask(matte: Matte, tmp_path: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 20:60] = 255
    write_image(tmp_path / "mask.png", mask)
    done = matte(
        "trimap", tmp_path / "mask.png", "-o", tmp_path / "trimap.png", "--inside", 3, "--outside", 5
    )
    assert done.returncode == 0, done.stderr
    row = read_alpha(tmp_path / "trimap.png")[30]
    assert [int(row[x]) for x in (14, 15, 22, 23)] == [0, 128, 128, 255]


def test_doctor(matte: Matte, runs: None) -> None:
    done = matte("doctor")
    assert done.returncode == 0
    assert "runs" in done.stdout


def test_doctor_without_an_engine_says_how_to_get_one(matte: Matte, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = matte("doctor")
    assert done.returncode == 1
    assert "dim-matting[cpu]" in done.stdout


@pytest.mark.usefixtures("runs")
def test_exit_codes_of_a_real_process(folder: Path) -> None:
    image, trimap = folder / "images" / "a.png", folder / "trimaps" / "a.png"
    assert process("run", image, trimap, "-o", folder / "alpha.png").returncode == 0
    (folder / "images" / "a.png").write_bytes(b"no image")
    failed = process("run", image, trimap, "-o", folder / "other.png")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: cannot read the image")
    assert not (folder / "other.png").exists()
    assert process("run", folder, "-o", folder / "out").returncode == 1


@pytest.mark.usefixtures("runs")
def test_inputs_are_never_replaced(matte: Matte, folder: Path, files: tuple[Path, Path]) -> None:
    image, trimap = files
    (folder / "link.png").symlink_to(image)
    before = {file: file.read_bytes() for file in folder.rglob("*.png")}
    commands: list[tuple[object, ...]] = [
        ("run", image, trimap, "-o", image),
        ("run", image, trimap, "-o", trimap),
        ("run", image, trimap, "-o", folder / "images" / ".." / image.name),
        ("run", folder / "link.png", trimap, "-o", image),
        ("run", folder, "-o", folder / "images"),
        ("run", folder / "images", folder / "trimaps", "-o", folder / "trimaps"),
        ("trimap", trimap, "-o", trimap),
    ]
    colour = ("--out", "composite", "--foreground", "image", "--background")
    commands.append(
        ("run", image, trimap, "-o", folder / "images" / "b.png", *colour, folder / "images/b.png")
    )
    for command in commands:
        done = matte(*command)
        assert done.returncode == 2, command
        assert "it is one of the inputs" in done.stderr, command
    assert {file: file.read_bytes() for file in folder.rglob("*.png")} == before


@pytest.mark.usefixtures("runs")
def test_what_is_no_error_of_ours_fails_alone_too(matte: Matte, folder: Path) -> None:
    """An image of one pixel, and a result whose place is taken by a folder."""
    for name in ("images", "trimaps"):
        write_image(folder / name / "pixel.png", np.full((1, 1), 128, np.uint8))
    (folder / "out" / "a.png").mkdir(parents=True)
    done = matte("run", folder / "images", folder / "trimaps", "-o", folder / "out")
    assert done.returncode == 1
    assert "2 done, 1 failed" in done.stdout
    assert "failed a" in done.stderr
    assert (folder / "out" / "b.png").is_file()


TERMINATED = """
import os, signal, sys
from pathlib import Path
import dim.cli_support
from dim.files import scratch_file
from dim_runtime.cli import main

def work(app):
    with scratch_file(Path(sys.argv[1]) / "out.tif") as path:
        path.write_bytes(b"alpha")
        print(len(list(path.parent.iterdir())), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

dim.cli_support.run = work
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program can handle")
def test_a_terminated_run_leaves_no_scratch_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + 15, "1\n"), done.stderr
    assert list(tmp_path.iterdir()) == []
