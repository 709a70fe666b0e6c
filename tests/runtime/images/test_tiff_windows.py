"""TIFF by windows: every layout gives the same pixels; what cannot be read is an error before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError, MissingExtraError
from dim.images.files import read_image
from dim.images.tiff_reader import TiffReader
from dim_runtime.images.tiff_windows import TiffImage, TiffTrimap

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 75, 101
WINDOWS = [
    (slice(0, HEIGHT), slice(0, WIDTH)),
    (slice(13, 57), slice(30, 31)),
    (slice(70, 75), slice(90, 101)),
    (slice(16, 32), slice(32, 64)),
]


def pixels(dtype: type = np.uint8, samples: int = 3) -> np.ndarray:
    y, x, s = np.mgrid[:HEIGHT, :WIDTH, :samples]
    return ((y * 256 // HEIGHT + 3 * x + 50 * s) % 256 * (np.iinfo(dtype).max // 255)).astype(dtype)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 8},
    "big-endian": {"rowsperstrip": 8, "byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "tiles": {"tile": (16, 32)},
    "deflated strips": {"compression": "zlib", "rowsperstrip": 8},
    "deflated tiles, predicted": {"compression": "zlib", "predictor": True, "tile": (32, 16)},
    "PackBits": {"compression": "packbits", "rowsperstrip": 7},
    "LZW": {"compression": "lzw", "predictor": True, "rowsperstrip": 9},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_are_those_of_the_image(tmp_path: Path, layout: str, dtype: type) -> None:
    if layout == "LZW":
        pytest.importorskip("imagecodecs")
    image, path = pixels(dtype), tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="rgb", **LAYOUTS[layout])
    with TiffReader(path) as reader:
        found = TiffImage(reader)
        assert (found.shape, found.dtype) == (image.shape, dtype)
        assert found.dtype.isnative
        for window in WINDOWS:
            np.testing.assert_array_equal(found[window], image[window])
        np.testing.assert_array_equal(found[20:30], image[20:30])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied_as_by_the_ordinary_reader(
    tmp_path: Path, orientation: int, compression: str | None
) -> None:
    path = tmp_path / "turned.tif"
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(
        path, pixels(), photometric="rgb", compression=compression, rowsperstrip=8, extratags=tags
    )
    expected = read_image(path)
    with TiffReader(path) as reader:
        found = TiffImage(reader)
        assert found.shape == expected.shape
        for window in ((slice(0, 101), slice(0, 101)), (slice(5, 40), slice(11, 12))):
            np.testing.assert_array_equal(found[window], expected[window])


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_gray_is_repeated_and_alpha_dropped(tmp_path: Path, samples: int) -> None:
    image, path = pixels(samples=samples), tmp_path / "image.tif"
    kind = {"photometric": "rgb" if samples > 2 else "minisblack", "planarconfig": "contig"}
    extra = {"extrasamples": ["unassalpha"]} if samples in (2, 4) else {"planarconfig": None}
    tifffile.imwrite(path, image if samples > 1 else image[..., 0], **kind | extra)
    with TiffReader(path) as reader:
        expected = image[..., :3] if samples == 4 else image[..., :1].repeat(3, 2)
        np.testing.assert_array_equal(TiffImage(reader)[0:HEIGHT], expected)


def test_planes_and_inverted_gray(tmp_path: Path) -> None:
    image = pixels()
    tifffile.imwrite(
        tmp_path / "planes.tif",
        image.transpose(2, 0, 1).copy(),
        photometric="rgb",
        planarconfig="separate",
        compression="zlib",
        rowsperstrip=8,
    )
    with TiffReader(tmp_path / "planes.tif") as reader:
        np.testing.assert_array_equal(TiffImage(reader)[WINDOWS[1]], image[WINDOWS[1]])
    tifffile.imwrite(tmp_path / "white.tif", image[..., 0], photometric="miniswhite")
    with TiffReader(tmp_path / "white.tif") as reader:
        np.testing.assert_array_equal(TiffTrimap(reader)[10:20], 255 - image[10:20, :, 0])


def test_trimaps_of_16_bits_and_of_equal_channels(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 255]], np.uint8).repeat(5, 0)
    tifffile.imwrite(tmp_path / "deep.tif", levels.astype(np.uint16) * 257)
    tifffile.imwrite(tmp_path / "rgb.tif", levels[..., None].repeat(3, 2), photometric="rgb")
    for name in ("deep.tif", "rgb.tif"):
        with TiffReader(tmp_path / name) as reader:
            np.testing.assert_array_equal(TiffTrimap(reader)[0:5], levels)


def test_trimaps_with_colours_or_alpha_are_errors(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "colours.tif", pixels(), photometric="rgb")
    with TiffReader(tmp_path / "colours.tif") as reader, pytest.raises(InputError, match="colours"):
        TiffTrimap(reader)[0:5]
    tifffile.imwrite(
        tmp_path / "alpha.tif", pixels(samples=4), photometric="rgb", extrasamples=["unassalpha"]
    )
    with TiffReader(tmp_path / "alpha.tif") as reader, pytest.raises(InputError, match="alpha channel"):
        TiffTrimap(reader)[0:5]
    opaque = np.dstack([np.full((9, 9), 128, np.uint8), np.full((9, 9), 255, np.uint8)])
    tifffile.imwrite(
        tmp_path / "opaque.tif",
        opaque,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    with TiffReader(tmp_path / "opaque.tif") as reader:
        np.testing.assert_array_equal(TiffTrimap(reader)[0:9], opaque[..., 0])


@pytest.mark.parametrize("layout", ["one strip", "strips", "deflated strips", "deflated tiles, predicted"])
def test_a_file_that_is_cut_off_is_refused_at_once(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels(), photometric="rgb", **LAYOUTS[layout])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        TiffReader(path)


def test_a_damaged_strip_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels(), photometric="rgb", **LAYOUTS["deflated strips"])
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[3]
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    with TiffReader(path) as reader, pytest.raises(InputError, match="number 3"):
        reader[0:HEIGHT]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.int16), "int16"),
        (np.zeros((4, 4), np.uint32), "32 bits"),
    ],
)
def test_other_samples_are_errors(tmp_path: Path, image: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb" if image.ndim == 3 else "minisblack")
    with pytest.raises(InputError, match=message):
        TiffReader(tmp_path / "image.tif")


def test_other_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("some text")
    for name in ("text.tif", "none.tif"):
        with pytest.raises(InputError, match="cannot"):
            TiffReader(tmp_path / name)


def test_a_single_huge_strip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "image.tif", pixels(), photometric="rgb", compression="zlib", rowsperstrip=75)
    monkeypatch.setattr("dim.images.tiff_reader.SEGMENT_LIMIT", 10_000)
    with pytest.raises(InputError, match="tiffcp -t"):
        TiffReader(tmp_path / "image.tif")


def test_without_tifffile_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[tiff\]"):
        TiffReader(tmp_path / "image.tif")


def test_jpeg_in_tiff_is_read_as_by_the_ordinary_reader(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    path, smooth = tmp_path / "image.tif", np.full((64, 64, 3), (200, 90, 30), np.uint8)
    tifffile.imwrite(path, smooth, photometric="rgb", compression="jpeg", tile=(32, 32))
    with TiffReader(path) as reader:
        found = TiffImage(reader)[0:64]
    assert np.abs(found.astype(int) - smooth).max() <= 3
    assert np.abs(found.astype(int) - read_image(path)).max() <= 3


WITHOUT_CODECS = """
import sys
sys.modules["imagecodecs"] = None
from pathlib import Path
from dim.errors import MissingExtraError
from dim.images.tiff_reader import TiffReader
try:
    TiffReader(Path(sys.argv[1]))
except MissingExtraError as error:
    print(error)
"""


def test_without_the_decoders_the_error_names_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "image.tif", pixels(), photometric="rgb", compression="lzw")
    command = [sys.executable, "-c", WITHOUT_CODECS, str(tmp_path / "image.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "LZW compression" in done.stdout
    assert "dim-matting[tiff]" in done.stdout


def test_the_scale_of_a_trimap_is_judged_when_all_of_it_was_read(tmp_path: Path) -> None:
    """A dark slice of 16 bits is not yet a trimap on the scale of 8 bits."""
    path = tmp_path / "trimap.tif"
    stored = np.zeros((HEIGHT, WIDTH), np.uint16)
    stored[:30], stored[30:50] = 200, 65535
    tifffile.imwrite(path, stored)
    with TiffReader(path) as reader:
        trimap = TiffTrimap(reader)
        assert (trimap[:30] == 1).all()
        with pytest.raises(InputError, match="from 0 to 200: the scale of 8 bits"):
            trimap.require_scale()
        assert (trimap[30:50] == 255).all()
        trimap.require_scale()
