"""Whole TIFF files: every layout gives the picture, or an error that names the layout."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim.errors import InputError, MissingExtraError
from dim.images import read_image, read_rgba, read_trimap
from dim.images.tiff_reader import TiffReader

tifffile = pytest.importorskip("tifffile")
codecs = pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 75, 101


def pixels(dtype: type = np.uint8, samples: int = 3) -> np.ndarray:
    y, x, s = np.mgrid[:HEIGHT, :WIDTH, :samples]
    return ((y * 256 // HEIGHT + 3 * x + 50 * s) % 256 * (np.iinfo(dtype).max // 255)).astype(dtype)


LOSSLESS = [None, "lzw", "zlib", "packbits", "zstd", "lzma", "webp", "png", "jpeg2000", "jpegxl"]
EIGHT_BITS_ONLY = ("webp",)


def options_of(compression: str | None) -> dict[str, Any]:
    level = {
        "webp": {"lossless": True},
        "jpeg2000": {"reversible": True, "level": 0},
        "jpegxl": {"lossless": True},
    }
    return {"compression": compression, "compressionargs": level.get(str(compression), {})}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("layout", [{"rowsperstrip": 8}, {"tile": (32, 48)}], ids=["strips", "tiles"])
def test_lossless_compressions(
    tmp_path: Path, compression: str | None, layout: dict[str, Any], dtype: type
) -> None:
    if compression in EIGHT_BITS_ONLY and dtype == np.uint16:
        pytest.skip("8 bits only")
    path = tmp_path / "image.tif"
    try:
        tifffile.imwrite(path, pixels(dtype), photometric="rgb", **layout, **options_of(compression))
    except (ValueError, KeyError, RuntimeError, codecs.DelayedImportError) as error:
        pytest.skip(f"this build does not write it: {error}")
    np.testing.assert_array_equal(read_image(path), pixels(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("samples", [3, 4])
def test_separate_planes(tmp_path: Path, samples: int, compression: str | None, dtype: type) -> None:
    image, path = pixels(dtype, samples), tmp_path / "image.tif"
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    extra = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    for layout in ({"rowsperstrip": 8}, {"tile": (16, 32)}):
        tifffile.imwrite(path, planes, **options, **layout, **extra)
        np.testing.assert_array_equal(read_image(path), image[..., :3])
        if samples == 4:
            np.testing.assert_array_equal(read_rgba(path), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [[], ["unassalpha"], ["unassalpha", "unspecified"]])
def test_white_is_zero_and_extra_samples(tmp_path: Path, extra: list[str], dtype: type) -> None:
    stored, path = pixels(dtype, 1 + len(extra)), tmp_path / "image.tif"
    largest = np.iinfo(dtype).max
    options = {"extrasamples": extra, "planarconfig": "contig"} if extra else {}
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(path, stored if extra else stored[..., 0], photometric=photometric, **options)
        gray = stored[..., :1] if photometric == "minisblack" else largest - stored[..., :1]
        found = read_image(path)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, gray.repeat(3, 2))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_use_the_whole_scale(tmp_path: Path, bits: int) -> None:
    levels = (np.arange(9 * 11).reshape(9, 11) % 2**bits).astype(np.uint8)
    path = tmp_path / "image.tif"
    path.write_bytes(packed_tiff(levels, bits))
    np.testing.assert_array_equal(read_image(path)[..., 0], levels * (255 // (2**bits - 1)))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_a_palette_and_its_alpha(tmp_path: Path, bits: int) -> None:
    size, path = 2**bits, tmp_path / "image.tif"
    index = (np.arange(9 * 12).reshape(9, 12) % size).astype(np.uint8)
    alpha = index[::-1]
    colours = np.random.default_rng(0).integers(0, 256, (3, size), np.uint16)
    # Index and alpha lie side by side: as a gray image of twice the width.
    content = packed_tiff(np.stack([index, alpha], -1).reshape(9, 24), bits)
    (tags,) = struct.unpack_from("<I", content, 4)
    data, (count,) = content[8:tags], struct.unpack_from("<H", content, tags)
    fields = dict(struct.unpack_from("<HxxxxxxI", content, tags + 2 + 12 * i) for i in range(count))
    fields |= {256: 12, 262: 3, 277: 2}
    after = 8 + len(data)
    tables = (colours * 257).astype("<u2").tobytes()
    start = after + len(tables)
    entries = [(tag, 4, 1, value) for tag, value in fields.items() if tag != 258]
    entries += [(258, 3, 2, bits | bits << 16), (320, 3, 3 * size, after), (338, 3, 1, 2)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    path.write_bytes(
        b"II*\0"
        + struct.pack("<I", start)
        + data
        + tables
        + struct.pack("<H", len(entries))
        + packed
        + bytes(4)
    )
    scale = 255 // (size - 1)
    np.testing.assert_array_equal(read_rgba(path), np.dstack([colours.T[index], alpha * scale]))


def packed_tiff(levels: np.ndarray, bits: int) -> bytes:
    """Make an uncompressed gray TIFF of 1, 2 or 4 bits: rows start at whole bytes."""
    height, width = levels.shape
    unpacked = (levels[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(height, width * bits)
    data = np.packbits(unpacked.astype(np.uint8), axis=1).tobytes()
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    start = 8 + len(data)
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(fields)) + entries + bytes(4)


def test_palettes(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    index, path = pixels(samples=1)[..., 0], tmp_path / "image.tif"
    for scale in (257, 256, 1):
        tifffile.imwrite(path, index, photometric="palette", colormap=colours * np.uint16(scale))
        np.testing.assert_array_equal(read_image(path), colours.T[index])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_become_light(tmp_path: Path, dtype: type) -> None:
    largest = int(np.iinfo(dtype).max)
    inks = pixels(dtype, 4)
    tifffile.imwrite(tmp_path / "image.tif", inks, photometric="separated")
    light = (
        (largest - inks[..., :3].astype(np.float64)) * (largest - inks[..., 3:].astype(np.float64)) / largest
    )
    assert np.abs(read_image(tmp_path / "image.tif") - light).max() <= 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_times_alpha_are_divided(tmp_path: Path, dtype: type) -> None:
    largest = int(np.iinfo(dtype).max)
    straight = pixels(dtype, 4)
    alpha = straight[..., 3:].astype(np.float64) / largest
    stored = np.dstack([np.rint(straight[..., :3] * alpha).astype(dtype), straight[..., 3]])
    tifffile.imwrite(tmp_path / "image.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    found = read_rgba(tmp_path / "image.tif")
    np.testing.assert_array_equal(found[..., 3], straight[..., 3])
    visible = alpha[..., 0] > 0
    error = np.abs(found[..., :3].astype(np.float64) - straight[..., :3])[visible]
    # Half a level of what was stored, divided by alpha, and half a level of the result.
    assert (error <= 0.5 / alpha[visible] + 0.5).all()
    np.testing.assert_array_equal(read_image(tmp_path / "image.tif"), stored[..., :3])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma", "jpeg", "jpeg2000"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (32, 48)}], ids=["strips", "tiles"])
def test_damaged_strips_and_tiles_are_errors(
    tmp_path: Path, compression: str, layout: dict[str, Any]
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels(), photometric="rgb", compression=compression, **layout)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = bytearray(path.read_bytes())
    offset, size = places[2]
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    with pytest.raises(InputError, match="number 2"):
        read_image(path)


@pytest.mark.parametrize(
    ("image", "photometric", "message"),
    [
        (np.zeros((4, 4, 3), np.float16), "rgb", "float16"),
        (np.zeros((4, 4, 4), np.float32), "rgb", "float32"),
        (np.zeros((4, 4), np.int16), "minisblack", "int16"),
        (np.zeros((4, 4), np.uint32), "minisblack", "uint32"),
        (np.zeros((4, 4, 3), np.uint8), 8, "CIELAB"),
        (np.zeros((4, 4, 3), np.uint8), "ycbcr", "YCBCR"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, image: np.ndarray, photometric: Any, message: str) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric=photometric if photometric != 8 else "rgb")
    if photometric == 8:
        replace_number(path, 262, 8)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert caught.value.fix is not None


def replace_number(path: Path, tag: int, value: int) -> None:
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[tag].overwrite(value)


def test_a_strip_that_hides_a_larger_image_is_an_error(tmp_path: Path) -> None:
    """The strip is a JPEG of 8000×8000 px where 64×64 are declared."""
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="jpeg")
    bomb = cv2.imencode(".jpg", np.zeros((8000, 8000, 3), np.uint8))[1].tobytes()
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        start = path.stat().st_size
        tags[273].overwrite(start)
        tags[279].overwrite(len(bomb))
    with path.open("ab") as file:
        file.write(bomb)
    with pytest.raises(InputError, match="8000×8000 px inside"):
        read_image(path)


def test_a_stream_that_grows_is_cut_at_the_size_of_its_strip(tmp_path: Path) -> None:
    """Deflate of 100 MB of zeros in a strip of 12 kB: it is not unpacked."""
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="zlib")
    bomb = zlib.compress(bytes(100 << 20), 9)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags[273].overwrite(path.stat().st_size)
        tags[279].overwrite(len(bomb))
    with path.open("ab") as file:
        file.write(bomb)
    tracemalloc.start()
    try:
        with suppress(InputError):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_repeated_size_is_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((8, 8), np.uint8))
    content = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entries = [content[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    width = next(i for i, entry in enumerate(entries) if struct.unpack_from("<H", entry)[0] == 256)
    entries.insert(width, struct.pack("<HHII", 256, 4, 1, 9))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    struct.pack_into("<I", content, 4, len(content))
    (tmp_path / "image.tif").write_bytes(bytes(content) + directory)
    with pytest.raises(InputError, match="twice"):
        read_image(tmp_path / "image.tif")


def plain(path: Path, image: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, image, photometric="rgb" if image.ndim == 3 else "minisblack", **options)
    return path


@pytest.fixture
def without_tifffile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)


def test_plain_files_need_no_extra(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    images = [pixels(dtype, samples) for dtype in (np.uint8, np.uint16) for samples in (1, 3)]
    paths = []
    for number, image in enumerate(images):
        stored = image if image.shape[2] == 3 else image[..., 0]
        paths.append(plain(tmp_path / f"{number}.tif", stored, rowsperstrip=8))
        paths.append(plain(tmp_path / f"{number}b.tif", stored, byteorder=">"))
    expected = [read_image(path) for path in paths]
    request.getfixturevalue("without_tifffile")
    for path, image in zip(paths, expected, strict=True):
        np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (pixels(), {"compression": "lzw"}, "compression"),
        (pixels(np.uint16).transpose(2, 0, 1), {"planarconfig": "separate"}, "separate planes"),
        (pixels(samples=4), {"extrasamples": ["unassalpha"]}, "alpha channel"),
        (pixels(), {"tile": (16, 16)}, "tiles"),
        (pixels(samples=1)[..., 0], {"photometric": "miniswhite"}, "other colours"),
        (np.zeros((4, 4), np.float32), {}, "other depths"),
    ],
)
def test_other_files_name_the_extra(
    tmp_path: Path, image: np.ndarray, options: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    kind = {"photometric": "rgb" if image.ndim == 3 else "minisblack"}
    tifffile.imwrite(tmp_path / "image.tif", image, **kind | options)
    request.getfixturevalue("without_tifffile")
    with pytest.raises(MissingExtraError, match=message) as caught:
        read_trimap(tmp_path / "image.tif")
    assert "[tiff]" in str(caught.value)


def test_a_plain_file_that_is_cut_off_is_an_error(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = plain(tmp_path / "image.tif", pixels(), rowsperstrip=8)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cut off"):
        read_image(path)
    request.getfixturevalue("without_tifffile")
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


def test_the_first_of_several_pages_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in (pixels(), 255 - pixels()):
            writer.write(page, photometric="rgb")
    with TiffReader(path) as reader:
        np.testing.assert_array_equal(reader[:, :], pixels())


def test_every_damage_is_a_typed_error(tmp_path: Path) -> None:
    """Any byte of the first 400, the header and the directory, is changed: an image or an InputError."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels()[:20, :24], photometric="rgb", compression="zlib", rowsperstrip=8)
    whole, path = buffer.getvalue(), tmp_path / "image.tif"
    draw = np.random.default_rng(0)
    for place in range(0, min(400, len(whole))):
        content = bytearray(whole)
        content[place] = int(draw.integers(0, 256))
        path.write_bytes(content)
        for windows in (True, False):
            try:
                with TiffReader(path, windows=windows) as reader:
                    if reader.shape[0] * reader.shape[1] < 10_000:
                        reader[:, :]
            except InputError:
                pass


def test_a_negative_offset_is_an_error_of_ours(tmp_path: Path) -> None:
    """Found by `make fuzz`: an offset of a signed type, which no file handle can seek to."""
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels(), photometric="rgb", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags[273].offset
    content[at + 2 : at + 12] = struct.pack("<HIi", 9, 1, -32)
    path.write_bytes(content)
    for windows in (False, True):
        with pytest.raises(InputError, match="damaged"), TiffReader(path, windows=windows) as reader:
            reader[:, :]
