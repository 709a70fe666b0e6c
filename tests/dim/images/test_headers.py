"""Headers: the size that each format declares, and parts that reach beyond the file."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim import trimap
from dim.errors import InputError
from dim.images import read_image
from dim.images.headers import (
    FILL_BLOCK,
    MOST_CHUNKS,
    MOST_SEGMENTS,
    Header,
    HeaderError,
    declared_pixels,
    jpeg_segments,
    parse_header,
    png_chunks,
    read_header,
    require_whole,
)

Image: Any = pytest.importorskip("PIL.Image")
ImageOps: Any = pytest.importorskip("PIL.ImageOps")

HEIGHT, WIDTH = 5, 7
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def encoded(form: str, picture: Any = PICTURE, **options: object) -> bytes:
    """Encode by Pillow, which shares no code with the reader."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "PNG": ("PNG", lambda: encoded("PNG")),
    "JPEG": ("JPEG", lambda: encoded("JPEG")),
    "progressive JPEG": ("JPEG", lambda: encoded("JPEG", progressive=True)),
    "TIFF": ("TIFF", lambda: encoded("TIFF")),
    "lossy WebP": ("WebP", lambda: encoded("WEBP")),
    "lossless WebP": ("WebP", lambda: encoded("WEBP", lossless=True)),
    "WebP with metadata": ("WebP", lambda: encoded("WEBP", icc_profile=b"profile", lossless=True)),
    "animated WebP": (
        "WebP",
        lambda: encoded("WEBP", save_all=True, append_images=[PICTURE.rotate(180)], duration=100),
    ),
    "BMP": ("BMP", lambda: encoded("BMP")),
    "GIF": ("GIF", lambda: encoded("GIF", PICTURE.convert("P"))),
    "PPM": ("netpbm", lambda: encoded("PPM")),
    "PGM": ("netpbm", lambda: encoded("PPM", PICTURE.convert("L"))),
    "PGM with comments": ("netpbm", lambda: b"P5 # gray\n# made by hand\n7 5\n255\n" + bytes(35)),
    "JPEG 2000": ("JPEG 2000", lambda: encoded("JPEG2000", num_resolutions=1)),
    "AVIF": ("AVIF", lambda: encoded("AVIF")),
}


def content_of(name: str) -> bytes:
    try:
        return FORMATS[name][1]()
    except (KeyError, OSError) as error:
        pytest.skip(f"this build does not write {name}: {error}")


@pytest.mark.parametrize("name", FORMATS)
def test_the_declared_size(name: str, tmp_path: Path) -> None:
    content = content_of(name)
    assert parse_header(io.BytesIO(content)) == Header(FORMATS[name][0], WIDTH, HEIGHT)
    path = tmp_path / "image"
    path.write_bytes(content)
    assert read_header(path) == Header(FORMATS[name][0], WIDTH, HEIGHT)
    assert declared_pixels(path) == WIDTH * HEIGHT
    require_whole(path)


@pytest.mark.parametrize("name", FORMATS)
def test_every_cut_gives_the_size_or_a_typed_error(name: str) -> None:
    """A file that ends early is another format, a damaged header, or still has its whole header."""
    content = content_of(name)
    for length in range(min(len(content), 200)):
        try:
            found = parse_header(io.BytesIO(content[:length]))
        except HeaderError:
            continue
        assert found is None or (found.width <= WIDTH and found.height <= HEIGHT)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "lossless WebP"])
def test_a_file_that_is_cut_off_is_not_whole(name: str, tmp_path: Path) -> None:
    content = content_of(name)
    path = tmp_path / "image"
    # A JPEG's scan has no length: only its segments are known to be incomplete.
    for kept in (len(content) - 13 if name == "PNG" else 30, 25):
        path.write_bytes(content[:kept])
        with pytest.raises(HeaderError):
            require_whole(path)


def test_other_formats_have_no_header(tmp_path: Path) -> None:
    for content in (b"", b"text", bytes(100), b"%PDF-1.7 and more", b"....ftypisom" + bytes(40)):
        assert parse_header(io.BytesIO(content)) is None
    path = tmp_path / "text"
    path.write_bytes(b"text")
    assert declared_pixels(path) is None
    require_whole(path)
    with pytest.raises(OSError, match="No such file"):
        read_header(tmp_path / "none")


def test_damaged_headers_declare_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IDAT"))
    with pytest.raises(HeaderError, match="not IHDR"):
        read_header(path)
    assert declared_pixels(path) is None


def test_chunks_of_a_png_and_segments_of_a_jpeg() -> None:
    png = content_of("PNG")
    chunks = list(png_chunks(io.BytesIO(png)))
    assert [name for name, _, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack_from(">II", png, chunks[0][1]) == (WIDTH, HEIGHT)
    jpeg = content_of("JPEG")
    segments = list(jpeg_segments(io.BytesIO(jpeg)))
    assert segments[0][0] == 0xE0
    assert jpeg[segments[0][1] :][:4] == b"JFIF"
    assert 0xC0 in [marker for marker, _, _ in segments]


def test_lengths_beyond_the_file_are_named() -> None:
    png = bytearray(content_of("PNG"))
    struct.pack_into(">I", png, 33, 1 << 31)
    with pytest.raises(HeaderError, match=r"the chunk 'IDAT' ends at byte 2147483693, the file at byte"):
        list(png_chunks(io.BytesIO(png)))
    jpeg = content_of("JPEG")
    long = jpeg[:4] + b"\xff\xff" + jpeg[6:100]
    with pytest.raises(HeaderError, match="segment 0xe0 ends at byte"):
        list(jpeg_segments(io.BytesIO(long)))


def test_fill_bytes_and_segments_without_content() -> None:
    jpeg = content_of("JPEG")
    filled = jpeg[:2] + b"\xff\xff\xff\x01" + jpeg[2:]
    assert parse_header(io.BytesIO(filled)) == Header("JPEG", WIDTH, HEIGHT)
    with pytest.raises(HeaderError, match="a segment has 1 bytes"):
        parse_header(io.BytesIO(jpeg[:2] + b"\xff\xe0\x00\x01" + jpeg[6:]))
    with pytest.raises(HeaderError, match="no marker at byte 2"):
        parse_header(io.BytesIO(jpeg[:2] + b"\x00" + jpeg[3:]))
    with pytest.raises(HeaderError, match="it has no frame"):
        parse_header(io.BytesIO(jpeg[:2] + b"\xff\xd9"))


def test_the_largest_frame_of_a_webp_counts() -> None:
    """A canvas of one pixel does not hide a large frame."""
    frame = content_of("lossless WebP")[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(10)
    content = b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame
    assert parse_header(io.BytesIO(content)) == Header("WebP", WIDTH, HEIGHT)


def test_bitmaps_of_both_kinds_and_directions() -> None:
    bmp = bytearray(content_of("BMP"))
    struct.pack_into("<i", bmp, 22, -HEIGHT)
    assert parse_header(io.BytesIO(bmp)) == Header("BMP", WIDTH, HEIGHT)
    core = bytes(bmp[:14]) + struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    assert parse_header(io.BytesIO(core)) == Header("BMP", WIDTH, HEIGHT)


def test_the_largest_image_of_an_avif_counts() -> None:
    box = b"\0\0\0\x1cftypavif" + bytes(20)
    sizes = b"".join(b"ispe" + struct.pack(">III", 0, *size) for size in ((3, 90), (40, 2)))
    assert parse_header(io.BytesIO(box + sizes)) == Header("AVIF", 40, 90)
    with pytest.raises(HeaderError, match="declares no size"):
        parse_header(io.BytesIO(box))


def test_a_netpbm_file_without_numbers() -> None:
    with pytest.raises(HeaderError, match="no size"):
        parse_header(io.BytesIO(b"P6\nwidth height\n255\n"))


@pytest.mark.parametrize("fill", [1, 61, 62, 63, 64, 65, 200, 3 * FILL_BLOCK])
def test_fill_bytes_of_any_number_are_skipped(fill: int) -> None:
    jpeg = content_of("JPEG")
    filled = jpeg[:2] + b"\xff" * fill + jpeg[2:]
    assert parse_header(io.BytesIO(filled)) == Header("JPEG", WIDTH, HEIGHT)
    plain = [(marker, at + fill, length) for marker, at, length in jpeg_segments(io.BytesIO(jpeg))]
    assert list(jpeg_segments(io.BytesIO(filled))) == plain
    with pytest.raises(HeaderError, match="cut off"):
        parse_header(io.BytesIO(jpeg[:2] + b"\xff" * fill))


class Counted(io.BytesIO):
    """A file that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize(
    ("content", "most"),
    [
        (b"\xff\xd8" + b"\xff" * 10_000_000, 100),
        (b"\xff\xd8" + b"\xff\xe1\x00\x02" * (MOST_SEGMENTS + 9), 2 * MOST_SEGMENTS + 9),
        (b"\xff\xd8" + b"\xff\x01" * (MOST_SEGMENTS + 9), MOST_SEGMENTS + 9),
        (b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * (MOST_SEGMENTS + 9), MOST_SEGMENTS + 9),
    ],
)
def test_headers_of_countless_parts_are_refused_after_a_bounded_number_of_reads(
    content: bytes, most: int
) -> None:
    file = Counted(content)
    with pytest.raises(HeaderError, match=r"more than|cut off"):
        parse_header(file)
    assert file.reads <= most


def test_a_png_of_countless_chunks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chunks.png"
    png = content_of("PNG")
    path.write_bytes(png[:33] + b"\0\0\0\0tEXt\0\0\0\0" * MOST_CHUNKS + png[33:])
    with pytest.raises(HeaderError, match="more than 262144 chunks"):
        require_whole(path)


@pytest.mark.parametrize(("white", "dtype"), [(100, np.uint8), (1023, np.uint16), (4095, np.uint16)])
def test_a_netpbm_file_of_fewer_levels_uses_the_whole_range(
    tmp_path: Path, white: int, dtype: type[np.unsignedinteger[Any]]
) -> None:
    levels = np.linspace(0, white, 60).reshape(6, 10).round()
    big = levels.astype(np.uint8 if white < 256 else ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5\n# levels\n10 6\n%d\n" % white + big.tobytes())
    found = read_image(tmp_path / "a.pgm")[..., 0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.rint(levels * (np.iinfo(dtype).max / white)))


def test_a_trimap_of_fewer_levels_keeps_its_foreground(tmp_path: Path) -> None:
    for name, content in (("text", b"P2 3 1 100\n0 50 100\n"), ("bytes", b"P5 3 1 100\n\0\x32\x64")):
        (tmp_path / f"{name}.pgm").write_bytes(content)
        np.testing.assert_array_equal(trimap.read(tmp_path / f"{name}.pgm").trimap, [[0, 128, 255]])


@pytest.mark.parametrize("white", [0, 65536])
def test_a_netpbm_file_without_levels_is_damaged(tmp_path: Path, white: int) -> None:
    (tmp_path / "a.pgm").write_text(f"P2 1 1 {white}\n0\n")
    with pytest.raises(InputError, match="largest value"):
        read_image(tmp_path / "a.pgm")


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_bits_uses_the_whole_range(tmp_path: Path, bits: int) -> None:
    image = np.full((16, 16, 3), 2**bits - 1, np.uint16)
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    try:
        written = cv2.imwrite(str(tmp_path / "a.avif"), image, options)
    except cv2.error:
        written = False
    if not written:
        pytest.skip("this build of OpenCV does not write AVIF of more than 8 bits")
    assert read_image(tmp_path / "a.avif").min() > 0.99 * 65535


def test_jpeg_2000_of_12_bits_states_its_depth() -> None:
    size = struct.pack(">HH4I4IHBBB", 41, 0, 10, 6, 0, 0, 10, 6, 0, 0, 1, 11, 1, 1)
    header = parse_header(io.BytesIO(b"\xff\x4f\xff\x51" + size))
    assert header == Header("JPEG 2000", 10, 6, 4095)


@pytest.mark.parametrize(("brands", "avif"), [(b"heicmif1", False), (b"miafavif", True)])
def test_the_brand_mif1_alone_is_no_avif(tmp_path: Path, brands: bytes, avif: bool) -> None:
    box = struct.pack(">I", 16 + len(brands)) + b"ftypmif1" + bytes(4) + brands
    path = tmp_path / "a.heic"
    path.write_bytes(box + struct.pack(">I4sxxxxII", 20, b"ispe", 40, 90))
    if avif:
        assert read_header(path) == Header("AVIF", 40, 90)
    else:
        with pytest.raises(InputError, match="HEIF, as telephones save it"):
            read_image(path)


def test_the_size_of_a_file_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert declared_pixels(tmp_path / "absent.tif") is None
    assert declared_pixels(tmp_path) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_its_own_boxes(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    exif = Image.Exif()
    exif[0x112] = orientation
    picture = Image.fromarray(upright)
    try:
        picture.save(tmp_path / "a.avif", exif=exif.tobytes(), quality=100, subsampling="4:4:4")
    except (KeyError, OSError) as error:
        pytest.skip(f"this build does not write AVIF: {error}")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.avif")))
    found = read_image(tmp_path / "a.avif")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    ("header", "white"),
    [
        (b"P5\n# " + b"x" * 1100 + b"\n4 1\n#" + b"y" * 1100 + b"\n100\n", 100),
        (b"P5 # one\n # two\r\n 0004\t1\n000100\n", 100),
        (b"P6\n4 1 255\n", None),
        (b"P4\n4 1\n", None),
    ],
)
def test_headers_of_netpbm_with_comments_and_zeros(header: bytes, white: int | None) -> None:
    assert parse_header(io.BytesIO(header + bytes(16))) == Header("netpbm", 4, 1, white)


def test_a_comment_that_opencv_takes_for_pixels_is_an_error() -> None:
    with pytest.raises(HeaderError, match="comment follows"):
        parse_header(io.BytesIO(b"P5\n4 1\n255# four\n" + bytes(4)))


def test_a_text_without_a_last_line_break_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P2\n3 1\n255\n7 80 255")
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm")[..., 0], [[7, 80, 255]])


def test_gray_jpeg_2000_is_read_as_an_image(tmp_path: Path) -> None:
    gray = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    try:
        Image.fromarray(gray).save(tmp_path / "a.j2k")
    except (KeyError, OSError) as error:
        pytest.skip(f"this build does not write JPEG 2000: {error}")
    np.testing.assert_array_equal(read_image(tmp_path / "a.j2k"), np.dstack([gray] * 3))
