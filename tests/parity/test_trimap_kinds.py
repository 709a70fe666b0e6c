"""Every kind of trimap file gives the same alpha, or the same error, whichever command reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from dim import checkpoint
from dim.errors import DimError
from dim.images import read_alpha, write_image
from dim_export.cli.app import app as export_app
from dim_export.int8.calibration import CalibrationPairs
from dim_export.parity.cases import pictures
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.batch.items import read_items
from dim_runtime.batch.run import run_items
from dim_runtime.cli.app import app as runtime_app
from dim_runtime.images.pairs import read_samples
from dim_runtime.outputs import stream_tiff
from dim_runtime.outputs.pair import run_pair
from dim_runtime.outputs.spec import OutputSpec
from dim_training.cli.app import app as training_app
from dim_training.scoring.evaluate import evaluate
from dim_training.scoring.photographs import prefetched, readable_entries
from dim_training.scoring.scores import Region

for package in ("onnxruntime", "onnxscript"):
    pytest.importorskip(package)
tifffile = pytest.importorskip("tifffile")

UInt8 = npt.NDArray[np.uint8]
Answer = list[int] | str
"""The trimap that the network saw, one row, or the error's "got"."""

SIDE = 48
BANDS = np.repeat(np.array([0, 128, 255], np.uint8), SIDE // 3)
TRIMAP: UInt8 = np.repeat(BANDS[None], SIDE, 0)
"""A third each of background, unknown and foreground."""
OPAQUE = np.full_like(TRIMAP, 255)
RIGHT = BANDS.tolist()
COLOURS = "colours"
TRANSPARENT = "an alpha channel with transparent pixels"
LABELS = "only 0, 1, 2: nothing is unknown and nothing is foreground"
NO_UNKNOWN = "no unknown pixels"


def classes(*levels: int, dtype: type = np.uint8) -> npt.NDArray[Any]:
    """Return a trimap whose background, unknown and foreground pixels have these values."""
    table = dict(zip((0, 128, 255), levels, strict=True))
    return np.vectorize(table.__getitem__)(TRIMAP).astype(dtype)


def colour_classes(*colours: tuple[int, int, int]) -> UInt8:
    return np.stack([classes(*channel) for channel in zip(*colours, strict=True)], axis=2)


def channels(*planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.stack(planes, axis=2)


class Kind(NamedTuple):
    """One kind of file, and what each command must make of it.

    Attributes:
        pixels: H, W or H, W, samples in the order gray, alpha or R, G, B, A; for a palette its indices.
        answer: the trimap that the network sees, one row, or the error.
        suffix: format.
        palette: R, G, B of each index, if the file has a palette.
        scored: what commands answer that score unknown pixels, if they answer something else.
    """

    pixels: npt.NDArray[Any]
    answer: Answer
    suffix: str = ".png"
    palette: tuple[int, ...] | None = None
    scored: Answer | None = None


HOLE = OPAQUE.copy()
HOLE[0, 0] = 254
INDICES = classes(0, 1, 2)
KINDS = {
    "gray": Kind(TRIMAP, RIGHT),
    "gray, 16 bits": Kind(TRIMAP.astype(np.uint16) * 257, RIGHT),
    "gray, 16 bits, half of white": Kind(classes(0, 32768, 65535, dtype=np.uint16), RIGHT),
    "gray, 16 bits on the scale of 8": Kind(
        TRIMAP.astype(np.uint16), "16-bit samples from 0 to 255: the scale of 8 bits"
    ),
    "labels in 16 bits": Kind(
        classes(0, 1, 2, dtype=np.uint16), "16-bit samples from 0 to 2: the scale of 8 bits"
    ),
    "equal channels": Kind(channels(TRIMAP, TRIMAP, TRIMAP), RIGHT),
    "equal channels, 16 bits": Kind(channels(*[TRIMAP.astype(np.uint16) * 257] * 3), RIGHT),
    "nearly equal channels": Kind(
        channels(np.minimum(TRIMAP, 247) + np.uint8(8), TRIMAP, np.maximum(TRIMAP, 8) - np.uint8(8)), RIGHT
    ),
    "three colours": Kind(colour_classes((255, 0, 0), (0, 255, 0), (0, 0, 255)), COLOURS),
    "red for unknown": Kind(colour_classes((0, 0, 0), (255, 0, 0), (255, 255, 255)), COLOURS),
    "a channel that is 9 levels off": Kind(channels(TRIMAP, TRIMAP, np.maximum(TRIMAP, 9) - 9), COLOURS),
    "opaque RGBA": Kind(channels(TRIMAP, TRIMAP, TRIMAP, OPAQUE), RIGHT),
    "coloured opaque RGBA": Kind(channels(TRIMAP, TRIMAP, 255 - TRIMAP, OPAQUE), COLOURS),
    "transparent RGBA": Kind(channels(TRIMAP, TRIMAP, TRIMAP, TRIMAP), TRANSPARENT),
    "RGBA with one pixel of 254": Kind(channels(TRIMAP, TRIMAP, TRIMAP, HOLE), TRANSPARENT),
    "invisible RGBA": Kind(channels(TRIMAP, TRIMAP, TRIMAP, np.zeros_like(TRIMAP)), TRANSPARENT),
    "trimap in the alpha channel": Kind(channels(OPAQUE, OPAQUE, OPAQUE, TRIMAP), TRANSPARENT),
    "opaque gray and alpha": Kind(channels(TRIMAP, OPAQUE), RIGHT),
    "transparent gray and alpha": Kind(channels(TRIMAP, TRIMAP), TRANSPARENT),
    "transparent gray and alpha, 16 bits": Kind(channels(*[TRIMAP.astype(np.uint16) * 257] * 2), TRANSPARENT),
    "labels 0, 1, 2": Kind(classes(0, 1, 2), LABELS),
    "labels 1, 2, 3": Kind(classes(1, 2, 3), "only 1, 2, 3: nothing is unknown and nothing is foreground"),
    "labels in three channels": Kind(channels(*[classes(0, 1, 2)] * 3), LABELS),
    "0, 127, 255": Kind(classes(0, 127, 255), RIGHT),
    "0, 127, 254": Kind(classes(0, 127, 254), RIGHT),
    "0, 100, 200: no foreground": Kind(classes(0, 100, 200), classes(0, 128, 128)[0].tolist()),
    "10, 11, 245": Kind(classes(10, 11, 245), RIGHT),
    "palette of grays": Kind(INDICES, RIGHT, palette=(0, 0, 0, 128, 128, 128, 255, 255, 255)),
    "palette of colours": Kind(INDICES, COLOURS, palette=(0, 0, 0, 128, 0, 0, 0, 128, 0)),
    "palette of labels": Kind(INDICES, LABELS, palette=(0, 0, 0, 1, 1, 1, 2, 2, 2)),
    "palette, GIF": Kind(INDICES, RIGHT, ".gif", palette=(0, 0, 0, 128, 128, 128, 255, 255, 255)),
    "BMP": Kind(channels(TRIMAP, TRIMAP, TRIMAP), RIGHT, ".bmp"),
    "WebP": Kind(channels(TRIMAP, TRIMAP, TRIMAP), RIGHT, ".webp"),
    "JPEG": Kind(TRIMAP, RIGHT, ".jpg"),
    "TIFF": Kind(TRIMAP, RIGHT, ".tif"),
    "floating point": Kind(TRIMAP.astype(np.float32) / 255, "float32 samples", ".tif"),
    "only background": Kind(np.zeros_like(TRIMAP), "only 0: nothing is unknown and nothing is foreground"),
    "only unknown": Kind(np.full_like(TRIMAP, 128), [128] * SIDE),
    "only foreground": Kind(OPAQUE, [255] * SIDE, scored=NO_UNKNOWN),
    "a binary mask": Kind(classes(0, 0, 255), classes(0, 0, 255)[0].tolist(), scored=NO_UNKNOWN),
    "1 bit": Kind(classes(0, 0, 1).astype(bool), classes(0, 0, 255)[0].tolist(), scored=NO_UNKNOWN),
    "another size": Kind(TRIMAP[:40], f"image {SIDE}×{SIDE} px, trimap {SIDE}×40 px"),
}


def write_trimap(path: Path, kind: Kind) -> Path:
    """Write the file, by Pillow where it can, so that reader and writer share no code."""
    path = path.with_suffix(kind.suffix)
    if kind.suffix in (".tif", ".tiff"):
        write_tiff(path, kind.pixels, kind.palette)
    elif kind.pixels.dtype == np.uint16 and kind.pixels.ndim == 3 and kind.pixels.shape[2] != 2:
        cv2.imwrite(str(path), kind.pixels)
    elif kind.pixels.dtype == np.uint16 and kind.pixels.ndim == 3:
        cv2.imwrite(str(path), channels(*[kind.pixels[..., 0]] * 3, kind.pixels[..., 1]))
    else:
        image = Image.fromarray(kind.pixels)
        if kind.palette is not None:
            image = Image.fromarray(kind.pixels, "P")
            image.putpalette(kind.palette)
        image.save(path, **({"lossless": True} if kind.suffix == ".webp" else {}))
    return path


def write_tiff(path: Path, pixels: npt.NDArray[Any], palette: tuple[int, ...] | None = None) -> Path:
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    options: dict[str, Any] = {"photometric": "rgb" if samples > 2 else "minisblack"}
    if samples in (2, 4):
        options |= {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
    if palette is not None:
        colours = np.zeros((3, 256), np.uint16)
        colours[:, : len(palette) // 3] = 257 * np.array(palette, np.uint16).reshape(-1, 3).T
        options = {"photometric": "palette", "colormap": colours}
    tifffile.imwrite(path, pixels, **options)
    return path


def write_pair(root: Path, kind: Kind) -> Path:
    """Write a folder of images/, trimaps/ and alphas/ with one image; return it."""
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    image[:, ::2] = 160
    write_image(root / "images" / "a.png", image)
    write_image(root / "alphas" / "a.png", TRIMAP)
    (root / "trimaps").mkdir()
    write_trimap(root / "trimaps" / "a", kind)
    return root


def visible_trimap(image: UInt8, trimap: UInt8) -> npt.NDArray[np.float64]:
    """Return the trimap as alpha, so that outputs show which trimap the network saw."""
    return trimap / np.float64(255)


@pytest.fixture
def matting() -> Iterator[Matting]:
    with Matting.from_backend(FakeBackend(alpha=visible_trimap)) as made:
        yield made


def files(root: Path) -> tuple[Path, Path]:
    (trimap,) = (root / "trimaps").iterdir()
    return root / "images" / "a.png", trimap


def by_run(matting: Matting, root: Path) -> UInt8:
    run_pair(matting, *files(root), root / "run.png", OutputSpec())
    return read_alpha(root / "run.png")


class FailedItemError(Exception):
    """The error that a batch recorded."""


def by_batch(matting: Matting, root: Path) -> UInt8:
    image, trimap = files(root)
    table = root / "pairs.jsonl"
    table.write_text(json.dumps({"image": str(image), "trimap": str(trimap)}))
    (result,) = run_items(matting, read_items(str(table)), str(root / "batch"), OutputSpec())
    if result.error is not None:
        raise FailedItemError(result.error)
    return read_alpha(root / "batch" / "a.png")


def by_streamed_run(matting: Matting, root: Path) -> UInt8:
    """Read the pair as TIFF files window by window, as is done with files above 67 megapixels."""
    image = write_tiff(root / "a.tif", np.full((SIDE, SIDE, 3), 90, np.uint8))
    _, trimap = files(root)
    stream_tiff.run_streamed(matting, image, trimap, root / "streamed.tif", OutputSpec())
    return read_alpha(root / "streamed.tif")


def by_test(matting: Matting, root: Path) -> UInt8:
    def predict(image: UInt8, trimap: UInt8) -> UInt8:
        return np.rint(matting(image, trimap) * 255).astype(np.uint8)

    photographs = prefetched(readable_entries(root))
    list(evaluate(predict, photographs, region=Region.UNKNOWN, alphas=root / "test"))
    return read_alpha(root / "test" / "a.png")


def by_verify(matting: Matting, root: Path) -> UInt8:
    found = list(pictures(root))[-1].sample
    return np.rint(matting(found.image, found.trimap) * 255).astype(np.uint8)


def by_calibration(matting: Matting, root: Path) -> UInt8:
    (found,) = CalibrationPairs(root)
    return np.rint(matting(found.image, found.trimap) * 255).astype(np.uint8)


def by_samples(matting: Matting, root: Path) -> UInt8:
    """Read the pairs as ``dim-export sensitivity`` and ``dim-export context`` do."""
    (found,) = read_samples(root)
    return np.rint(matting(found.image, found.trimap) * 255).astype(np.uint8)


COMMANDS: dict[str, Callable[[Matting, Path], UInt8]] = {
    "run": by_run,
    "batch": by_batch,
    "test": by_test,
    "verify": by_verify,
    "calibrate": by_calibration,
    "sensitivity and context": by_samples,
}
SCORING = set(COMMANDS) - {"run", "batch"}
"""Commands that compare or learn from unknown pixels, so that a trimap without any is an error."""


def require_answer(found: Callable[[], UInt8], answer: Answer) -> None:
    """Assert that a function returns the alpha, or raises the error, that the table gives."""
    if isinstance(answer, str):
        with pytest.raises((DimError, FailedItemError), match=re.escape(answer)):
            found()
    else:
        assert found()[0].tolist() == answer


@pytest.mark.filterwarnings("ignore::dim_runtime.errors.TrimapWarning")
@pytest.mark.filterwarnings("ignore::dim_runtime.errors.NothingUnknownWarning")
@pytest.mark.parametrize("name", KINDS)
def test_every_command_gives_the_same(name: str, matting: Matting, tmp_path: Path) -> None:
    kind = KINDS[name]
    root = write_pair(tmp_path, kind)
    for command, read in COMMANDS.items():
        scored = command in SCORING and kind.scored is not None
        require_answer(partial(read, matting, root), kind.scored if scored else kind.answer)


STREAMED = [name for name, kind in KINDS.items() if kind.pixels.dtype != bool]


@pytest.mark.filterwarnings("ignore::dim_runtime.errors.TrimapWarning")
@pytest.mark.filterwarnings("ignore::dim_runtime.errors.NothingUnknownWarning")
@pytest.mark.parametrize("name", STREAMED)
def test_files_that_are_read_by_windows_give_the_same(name: str, matting: Matting, tmp_path: Path) -> None:
    kind = KINDS[name]._replace(suffix=".tif")
    require_answer(partial(by_streamed_run, matting, write_pair(tmp_path, kind)), kind.answer)


@pytest.fixture(scope="module")
def tiny(live_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a checkpoint of a very small network, and its artefact."""
    from dim_export.onnx_export.export import export

    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    checkpoint.save(live_model(stage=1, width=1 / 16), path)
    export(path, path.with_suffix(".onnx"), command="a test")
    return path, path.with_suffix(".onnx")


def command_lines(tiny: tuple[Path, Path], root: Path) -> dict[str, tuple[typer.Typer, list[object]]]:
    """Return the applications and arguments of the real commands on a folder of pairs."""
    model, artefact = tiny
    image, trimap = files(root)
    engine = ["--model", artefact, "--threads", 1]
    return {
        "run": (runtime_app, ["run", image, trimap, "-o", root / "run.png", *engine]),
        "batch": (runtime_app, ["batch", root, "-o", root / "batch", *engine]),
        "test": (training_app, ["test", artefact, "--data", root, "--workers", 0, "--alphas", root / "test"]),
        "verify": (export_app, ["verify", model, artefact, "--images", root, "--runs", 0, "--threads", 1]),
        "calibrate": (
            export_app,
            [
                "onnx",
                model,
                "-o",
                root / "i.onnx",
                "--precision",
                "int8",
                "--calibration",
                root,
                "--no-verify",
            ],
        ),
        "sensitivity": (export_app, ["sensitivity", model, "--data", root, "--calibration", root]),
        "context": (export_app, ["context", artefact, "--images", root, "--threads", 1]),
    }


def invoke(app: typer.Typer, arguments: list[object]) -> tuple[int, str]:
    """Return the exit code and all that a command printed or raised, white space as single spaces."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, " ".join(f"{done.output} {done.exception or ''}".split())


def test_the_command_lines_refuse_it(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    root = write_pair(tmp_path, KINDS["transparent RGBA"])
    for command, (app, arguments) in command_lines(tiny, root).items():
        code, text = invoke(app, arguments)
        assert code != 0, command
        assert TRANSPARENT in text, command
    assert sorted(path.name for path in root.rglob("*.png")) == ["a.png"] * 3
    assert not (root / "i.onnx").exists()


def test_the_command_lines_take_it(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    """Sixteen bits: what three commands write equals what they make of the gray file of 8 bits."""
    alphas = []
    for name in ("gray", "gray, 16 bits"):
        root = write_pair(tmp_path / name, KINDS[name])
        lines = command_lines(tiny, root)
        for command, written in (("run", "run.png"), ("batch", "batch/a.png"), ("test", "test/a.png")):
            code, text = invoke(*lines[command])
            assert code == 0, text
            alphas.append(read_alpha(root / written))
    assert len(np.unique(alphas[0])) > 3
    for alpha in alphas[1:]:
        np.testing.assert_array_equal(alpha, alphas[0])
