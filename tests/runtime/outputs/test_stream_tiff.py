"""Images larger than memory: any sliceable in and out, bounded memory, TIFF in and out by windows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim.errors import DimError, InputError, MissingExtraError
from dim.images.files import read_image
from dim_runtime import Matting
from dim_runtime.errors import MemoryLimitError, TrimapWarning
from dim_runtime.outputs.foreground import TILE
from dim_runtime.outputs.pair import load, plan_pair, run_pair, save
from dim_runtime.outputs.spec import Foreground, Output, OutputSpec
from dim_runtime.outputs.stream_tiff import run_streamed, streams

Pair = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def matting(identity: Any) -> Iterator[Matting]:
    with Matting.from_backend(identity, tile=512) as made:
        yield made


def as_memmap(folder: Path, name: str, array: np.ndarray) -> Any:
    made = np.memmap(folder / name, array.dtype, "w+", shape=array.shape)
    made[:] = array
    return made


def as_zarr(folder: Path, name: str, array: np.ndarray) -> Any:
    zarr = pytest.importorskip("zarr", minversion="3")
    chunks = (130, 300, 3)[: array.ndim]
    made = zarr.create_array(str(folder / name), shape=array.shape, dtype=array.dtype, chunks=chunks)
    made[:] = array
    return made


@pytest.mark.parametrize("kind", [as_memmap, as_zarr])
@pytest.mark.parametrize("context", ["exact", 64])
def test_files_give_what_arrays_give(
    tmp_path: Path, identity: Any, pair: Pair, kind: Callable[..., Any], context: Any
) -> None:
    image, trimap = pair(450, 620)
    with Matting.from_backend(identity, tile=416, context=context) as matting:
        expected = matting(image, trimap)
        stored = kind(tmp_path, "image", image), kind(tmp_path, "trimap", trimap)
        assert matting.plan(stored[1]).windows == matting.plan(trimap).windows
        np.testing.assert_array_equal(matting(*stored), expected)
        out = kind(tmp_path, "out", np.full(trimap.shape, 9, np.float32))
        plan = matting.into(*stored, out)
    assert len(plan.windows) > 1
    np.testing.assert_array_equal(out[:], expected)


def test_an_array_is_written_in_place_and_in_its_precision(matting: Matting, pair: Pair) -> None:
    image, trimap = pair(80, 90)
    expected = matting(image, trimap)
    for dtype in (np.float16, np.float32, np.float64):
        out = np.full(trimap.shape, 9, dtype)
        matting.into(image, trimap, out)
        np.testing.assert_allclose(out, expected, atol=1e-3 if dtype == np.float16 else 1e-7)


def test_a_tolerant_trimap_is_told(matting: Matting, pair: Pair) -> None:
    image, trimap = pair(40, 40)
    with pytest.warns(TrimapWarning, match="1600 pixels") as told:
        matting.into(image, np.full_like(trimap, 100), np.zeros((40, 40), np.float32))
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((40, 41), np.float32),
        np.zeros((40, 40), np.uint8),
        [[0.0]],
        None,
        np.broadcast_to(np.float32(0), (40, 40)),
    ],
)
def test_outputs_that_cannot_be_written_are_errors(matting: Matting, pair: Pair, out: Any) -> None:
    with pytest.raises(InputError, match="cannot write the alpha"):
        matting.into(*pair(40, 40), out)


@pytest.mark.parametrize(("shape", "dtype"), [((40, 40), np.uint8), ((40, 40, 3), np.float32)])
def test_other_stored_images_are_errors(tmp_path: Path, matting: Matting, shape: Any, dtype: Any) -> None:
    stored = as_zarr(tmp_path, "image", np.zeros(shape, dtype))
    with pytest.raises(InputError, match="cannot use this image"):
        matting(stored, np.full((40, 40), 128, np.uint8))
    with pytest.raises(InputError, match="cannot use this trimap"):
        matting.plan(as_zarr(tmp_path, "trimap", np.zeros((40, 40), np.uint16)))


MAPPED_FILES = """
import numpy as np
from dim.contract import ArtefactMetadata, NetworkConfig
from dim_runtime import Matting
from dim_runtime.backends.base import Backend
from dim_runtime.memory import peak_resident_bytes

class Red(Backend):
    metadata = ArtefactMetadata(
        network=NetworkConfig(width=0.25), precision="fp32", context=192, multiply_adds_per_pixel=1,
        parameters=1, checkpoint_sha256="", versions={{}}, oldest_readers={{}}, command="",
    )
    def run(self, image, trimap):
        return image[..., 0] / np.float32(255)

shape = {height}, {width}
image = np.memmap({folder!r} + "/image", np.uint8, "r", shape=(*shape, 3))
trimap = np.memmap({folder!r} + "/trimap", np.uint8, "r", shape=shape)
alpha = np.memmap({folder!r} + "/alpha", np.float32, "w+", shape=shape)
with Matting.from_backend(Red(), tile=512) as matting:
    windows = len(matting.into(image, trimap, alpha).windows)
print(windows, peak_resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured by /proc")
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """4 and 16 megapixels: 32 and 128 MB of files, the same unknown share."""
    peaks = {}
    for height, width in ((2000, 2000), (4000, 4000)):
        fill(tmp_path, height, width)
        code = MAPPED_FILES.format(folder=str(tmp_path), height=height, width=width)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        windows, peaks[height] = map(int, done.stdout.split())
        assert windows == (height // 1000) * (width // 1000)
        alpha = np.memmap(tmp_path / "alpha", np.float32, "r", shape=(height, width))
        assert alpha[500, 500] == np.float32(77) / np.float32(255)
        assert alpha[-10, -10] == 1
    assert abs(peaks[4000] - peaks[2000]) < 15e6


def fill(folder: Path, height: int, width: int) -> None:
    """Return a gray image; foreground with one unknown block in each 1000×1000 pixels."""
    np.full((height, width, 3), 77, np.uint8).tofile(folder / "image")
    trimap = np.full((height, width), 255, np.uint8)
    for y in range(480, height, 1000):
        for x in range(480, width, 1000):
            trimap[y : y + 32, x : x + 32] = 128
    trimap.tofile(folder / "trimap")


@pytest.fixture
def files(tmp_path: Path, pair: Pair) -> tuple[Path, Path, Path]:
    """Return a pair of TIFF files: more than a tile of the renderer, strips and tiles, 16 bits, a profile."""
    tifffile = pytest.importorskip("tifffile")
    image, trimap = pair(TILE + 40, 300)
    paths = tmp_path / "image.tif", tmp_path / "trimap.tif", tmp_path / "out" / "result.tif"
    profile = b"\0" * 16 + b"RGB " + b"\0" * 120
    tifffile.imwrite(
        paths[0], image.astype(np.uint16) * 200, photometric="rgb", rowsperstrip=16, iccprofile=profile
    )
    tifffile.imwrite(paths[1], trimap, compression="zlib", tile=(64, 64))
    return paths


SPECS = [
    OutputSpec(),
    OutputSpec(depth=8),
    OutputSpec(output=Output.CUTOUT, foreground=Foreground.IMAGE),
    OutputSpec(output=Output.COMPOSITE, foreground=Foreground.IMAGE, background="#12F0A0", linear_light=True),
]


@pytest.mark.parametrize("spec", SPECS)
def test_streamed_files_are_those_of_the_ordinary_path(
    matting: Matting, files: tuple[Path, Path, Path], spec: OutputSpec
) -> None:
    tifffile = pytest.importorskip("tifffile")
    image, trimap, out = files
    run_streamed(matting, image, trimap, out, spec)
    loaded = load(image, trimap, spec)
    ordinary = out.with_name("ordinary.tif")
    save(ordinary, loaded, matting(loaded.image, loaded.trimap), spec)
    found, expected = (tifffile.TiffFile(path) for path in (out, ordinary))
    with found, expected:
        np.testing.assert_array_equal(found.asarray(), expected.asarray())
        assert found.pages[0].is_tiled
        for tag in (34675, 338):
            assert found.pages[0].tags.valueof(tag) == expected.pages[0].tags.valueof(tag)
        assert (found.pages[0].iccprofile is None) is (spec.output is Output.ALPHA)
    assert sorted(path.name for path in out.parent.iterdir()) == ["ordinary.tif", "result.tif"]


def test_an_enlarged_background_is_the_same_in_every_tile(
    matting: Matting, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    image, trimap, out = files
    behind = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "behind.png"), behind)
    spec = OutputSpec(
        output=Output.COMPOSITE, foreground=Foreground.IMAGE, background=str(tmp_path / "behind.png")
    )
    with pytest.warns(UserWarning, match="ICC profile"):
        run_streamed(matting, image, trimap, out, spec)
    loaded = load(image, trimap, OutputSpec())
    save(tmp_path / "o.tif", loaded, matting(loaded.image, loaded.trimap), spec)
    np.testing.assert_array_equal(read_image(out), read_image(tmp_path / "o.tif"))


def test_what_streams_is_told_by_names_and_size(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, trimap, out = files
    assert not streams(image, trimap, out)
    monkeypatch.setattr("dim_runtime.outputs.stream_tiff.STREAMED_PIXELS", 300 * (TILE + 40) - 1)
    assert streams(image, trimap, out)
    assert not streams(image, trimap, out.with_suffix(".png"))
    assert not streams(image, trimap.with_suffix(".png"), out)
    assert not streams(image.with_name("none.tif"), trimap, out)


@pytest.fixture
def large(files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    monkeypatch.setattr("dim_runtime.outputs.stream_tiff.STREAMED_PIXELS", 1000)
    return files


def test_a_large_pair_is_streamed_and_planned(matting: Matting, large: tuple[Path, Path, Path]) -> None:
    outcome = run_pair(matting, *large, OutputSpec())
    assert plan_pair(matting, *large, OutputSpec()).windows == outcome.plan.windows
    assert "1064 px" in outcome.summary()
    assert large[2].exists()


def test_a_plan_counts_the_arrays_that_the_call_gets(tmp_path: Path, matting: Matting) -> None:
    trimap = np.zeros((5000, 4000), np.uint8)
    image = np.broadcast_to(np.uint8(9), (*trimap.shape, 3))
    in_memory = matting.plan(trimap).peak_bytes
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=trimap.shape)
    in_file = matting.plan(trimap, image, out).peak_bytes
    # Float32 in memory has 80 MB.
    assert 50e6 < in_memory - in_file < 90e6


def small_trimap(paths: tuple[Path, Path, Path]) -> None:
    cv2.imwrite(str(paths[1]), np.full((50, 60), 128, np.uint8))


def cut_off(paths: tuple[Path, Path, Path]) -> None:
    paths[0].write_bytes(paths[0].read_bytes()[:-1000])


def damaged_tile(paths: tuple[Path, Path, Path]) -> None:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(paths[1]) as file:
        offset = file.pages[0].dataoffsets[9]
    content = bytearray(paths[1].read_bytes())
    content[offset : offset + 9] = b"\xff" * 9
    paths[1].write_bytes(content)


def transparent(paths: tuple[Path, Path, Path]) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        paths[1], np.zeros((TILE + 40, 300, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]
    )


def floats(paths: tuple[Path, Path, Path]) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(paths[0], np.zeros((TILE + 40, 300, 3), np.float32), photometric="rgb")


def missing(paths: tuple[Path, Path, Path]) -> None:
    paths[1].unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (small_trimap, "of one size"),
        (cut_off, "cut off"),
        (damaged_tile, "number 9"),
        (transparent, "alpha channel"),
        (floats, "float32"),
        (missing, "cannot read"),
    ],
)
def test_wrong_files_leave_nothing_behind(
    matting: Matting, large: tuple[Path, Path, Path], spoil: Callable[..., None], message: str
) -> None:
    spoil(large)
    with pytest.raises(InputError, match=message):
        run_pair(matting, *large, OutputSpec())
    assert not large[2].parent.exists() or not list(large[2].parent.iterdir())


def test_a_full_disk_leaves_nothing_behind(
    matting: Matting, large: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dim_runtime.outputs.stream_tiff._allocate", full)
    with pytest.raises(InputError, match="No space left"):
        run_pair(matting, *large, OutputSpec())
    assert not list(large[2].parent.iterdir())


def test_a_guard_that_was_lowered_is_kept(matting: Matting, large: tuple[Path, Path, Path]) -> None:
    with pytest.raises(InputError, match="--max-pixels"):
        run_pair(matting, *large, OutputSpec(max_pixels=5000))


def test_without_tifffile_nothing_falls_back(
    matting: Matting, large: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[tiff\]"):
        run_pair(matting, *large, OutputSpec())


@pytest.mark.parametrize("spec", [OutputSpec(), OutputSpec(output=Output.CUTOUT)])
def test_a_limit_below_the_result_is_told_before_any_work(
    identity: Any, large: tuple[Path, Path, Path], spec: OutputSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Matting.from_backend(identity, memory_limit=10_000_000) as matting:
        with pytest.raises(MemoryLimitError, match=f"cannot make the {spec.output}") as streamed:
            run_pair(matting, *large, spec)
        monkeypatch.setattr("dim_runtime.outputs.stream_tiff.STREAMED_PIXELS", 1 << 40)
        with pytest.raises(MemoryLimitError) as ordinary:
            run_pair(matting, *large, spec)
    assert isinstance(streamed.value, DimError)
    assert streamed.value.minimum > 10_000_000 < ordinary.value.minimum
    assert not identity.shapes
