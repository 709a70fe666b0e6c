"""Image files in and out: depths, channels, orientation, guards, and no partial files."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim.images.files import read_alpha, read_image, read_trimap, require_writable, write_image
from dim.images.headers import declared_pixels


def colours(dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (5, 7, channels), dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_what_is_written_is_read_back(tmp_path: Path, dtype: type, suffix: str) -> None:
    image = colours(dtype)
    write_image(tmp_path / f"image{suffix}", image)
    found = read_image(tmp_path / f"image{suffix}")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def test_gray_becomes_rgb_and_alpha_is_dropped(tmp_path: Path) -> None:
    gray = colours()[..., 0]
    write_image(tmp_path / "gray.png", gray)
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, 2))
    write_image(tmp_path / "rgba.png", colours(channels=4))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), colours(channels=4)[..., :3])


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_the_first_of_several_pages_is_read(tmp_path: Path, suffix: str) -> None:
    pages = [np.full((8, 9, 3), value, np.uint8) for value in (255, 0)]
    path = tmp_path / f"pages{suffix}"
    assert cv2.imwritemulti(str(path), pages)
    assert cv2.imcount(str(path)) == 2
    assert (read_image(path) > 240).all()
    assert (read_alpha(path) > 240).all()


def test_rgba_keeps_its_order(tmp_path: Path) -> None:
    image = colours(channels=4)
    write_image(tmp_path / "rgba.png", image)
    stored = cv2.imread(str(tmp_path / "rgba.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, image[..., [2, 1, 0, 3]])


def test_gray_reading(tmp_path: Path) -> None:
    gray = colours()[..., 0]
    write_image(tmp_path / "gray.png", gray)
    np.testing.assert_array_equal(read_alpha(tmp_path / "gray.png"), gray)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_colours_of_an_rgba_tiff_are_read_as_they_are_stored(tmp_path: Path, kind: str, dtype: type) -> None:
    """The decoder would multiply 8-bit colours with straight alpha."""
    tifffile = pytest.importorskip("tifffile")
    image = colours(dtype, channels=4)
    for byteorder in "<>":
        options = {"photometric": "rgb", "extrasamples": [kind], "byteorder": byteorder}
        tifffile.imwrite(tmp_path / "rgba.tif", image, **options)
        np.testing.assert_array_equal(read_image(tmp_path / "rgba.tif"), image[..., :3])


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_kind_of_tiff_tells_its_size(tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, colours(channels=4), photometric="rgb", byteorder=byteorder, bigtiff=bigtiff)
    assert declared_pixels(path) == 35
    path.write_bytes(path.read_bytes()[:20])
    assert declared_pixels(path) is None


TRIMAP = np.array([[0, 128, 255]], np.uint8).repeat(4, 0)


@pytest.mark.parametrize(
    "stored",
    [
        TRIMAP,
        TRIMAP.astype(np.uint16) * 257,
        TRIMAP[..., None].repeat(3, 2),
        np.dstack([TRIMAP, TRIMAP, TRIMAP, np.full_like(TRIMAP, 255)]),
    ],
    ids=["gray", "16 bits", "equal channels", "opaque alpha"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_trimaps_are_read_as_they_are(tmp_path: Path, stored: np.ndarray, suffix: str) -> None:
    if suffix == ".webp" and stored.dtype == np.uint16:
        pytest.skip("WebP has 8 bits")
    cv2.imwrite(str(tmp_path / f"trimap{suffix}"), stored)
    np.testing.assert_array_equal(read_trimap(tmp_path / f"trimap{suffix}"), TRIMAP)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_and_coloured_trimaps_are_errors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trimap{suffix}"
    cv2.imwrite(str(path), np.dstack([TRIMAP] * 4))
    with pytest.raises(InputError, match="transparent pixels"):
        read_trimap(path)
    cv2.imwrite(str(path), np.dstack([TRIMAP, TRIMAP, TRIMAP[:, ::-1]]))
    with pytest.raises(InputError, match="colours"):
        read_trimap(path)


def test_float_trimaps_are_errors(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "trimap.tif"), TRIMAP.astype(np.float32) / 255)
    with pytest.raises(InputError, match="float32"):
        read_trimap(tmp_path / "trimap.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_files_that_are_cut_off_are_errors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, read_trimap):
        with pytest.raises(InputError, match=str(path.name)):
            read(path)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with nothing but an orientation behind the start of a JPEG."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :16] = 255
    jpeg = cv2.imencode(".jpg", upright)[1].tobytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(jpeg, 6))  # 6: turn clockwise to see it upright
    found = read_image(path)
    assert found.shape == (32, 16, 3)
    assert found[:14].min() > 200
    assert found[18:].max() < 50


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0\x08\0\0\0"]
)
def test_other_files_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "image.png")


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "image.png")
    with pytest.raises(InputError, match="a folder"):
        read_image(tmp_path)


def test_floats_are_errors(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(InputError, match="float32"):
        read_image(tmp_path / "float.tiff")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_the_pixel_guard(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), colours())
    with pytest.raises(InputError, match="--max-pixels 35"):
        read_image(path, max_pixels=34)
    assert read_image(path, max_pixels=35).shape == (5, 7, 3)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """The header alone: nothing is there to be decoded."""
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 100_000, 100_000))
    with pytest.raises(InputError, match="OPENCV_IO_MAX_IMAGE_PIXELS"):
        read_image(path)


@pytest.mark.parametrize("name", ["alpha.jpg", "alpha", "alpha.npy"])
def test_only_lossless_formats_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        require_writable(tmp_path / name)


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got: a folder\n  expected: a file name, such as .*NAME\.png"):
        require_writable(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_files_get_8_bits_and_no_alpha(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    plain = np.full((16, 16, 3), 40_000, np.uint16)
    write_image(path, plain)
    assert np.abs(read_image(path).astype(int) - 40_000 // 257).max() <= 2
    for channels in (colours(channels=4), colours()[..., 0]):
        with pytest.raises(InputError, match="suffix"):
            write_image(path, channels)


def test_a_format_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold"):
        write_image(tmp_path / "long.webp", np.zeros((1, 17_000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "folder" / "image.png", colours())
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["image.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dim.files.os.replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_image(path, colours())
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("image.png", b"old")]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write"):
        write_image(tmp_path / "file" / "image.png", colours())


def test_a_file_far_longer_than_its_pixels_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    write_image(path, colours())
    with path.open("r+b") as file:
        file.truncate(40_000_000_000)  # sparse: it takes no room
    with pytest.raises(InputError, match=r"too long\n  got: 40000000000 bytes\n  expected: .* for 7×5 px"):
        read_image(path)


def test_a_name_that_is_too_long_is_an_input_error() -> None:
    for read in (read_image, read_trimap, read_alpha):
        with pytest.raises(InputError, match=r"cannot read the .*\n  got: File name too long"):
            read("n" * 300 + ".png")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"", "not an image"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(start + bytes(200 if start else 0))
    with pytest.raises(InputError, match=name):
        read_image(tmp_path / "photo.jpg")
