"""ICC profiles, resolution and gamma: in, out, and in every format."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from dim.errors import ProfileWarning
from dim.images.decoding import decode
from dim.images.files import read_image, read_metadata, read_photograph, write_image
from dim.images.metadata import Metadata, holds_rgb

tifffile = pytest.importorskip("tifffile")

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 33, 3), np.uint8)
SUFFIXES = [".png", ".tif", ".jpg", ".webp"]
D50 = b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"


def profile(size: int = 588, space: bytes = b"RGB ") -> bytes:
    """Make a header of an ICC profile that encoders accept, an empty tag table, and noise."""
    head = size.to_bytes(4, "big") + b"\0\0\0\0\2\x10\0\0" + b"mntr" + space + b"XYZ " + b"\0" * 12 + b"acsp"
    head = head.ljust(68, b"\0") + D50
    body = np.random.default_rng(1).integers(0, 256, size - 132, np.uint8).tobytes()
    return head.ljust(128, b"\0") + bytes(4) + body


@pytest.mark.parametrize("size", [588, 65_540, 140_000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_profile_is_read_back_and_the_pixels_stay(tmp_path: Path, suffix: str, size: int) -> None:
    write_image(tmp_path / f"plain{suffix}", PIXELS)
    path = tmp_path / f"image{suffix}"
    write_image(path, PIXELS, metadata=Metadata(profile(size)))
    plain = read_photograph(tmp_path / f"plain{suffix}")
    assert plain.metadata.profile is None
    found = read_photograph(path)
    assert found.metadata.profile == profile(size)
    np.testing.assert_array_equal(found.image, plain.image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_library_finds_profile_and_resolution(tmp_path: Path, suffix: str) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / f"image{suffix}"
    write_image(path, PIXELS, metadata=Metadata(profile(), (11811.0, 5906.0)))
    with pillow.open(path) as found:
        assert found.info["icc_profile"] == profile()
        if suffix != ".webp":
            assert [float(side) for side in found.info["dpi"]] == pytest.approx([300, 150], abs=0.1)


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpeg", "webp"])
def test_another_librarys_files_are_read(tmp_path: Path, suffix: str) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / f"image.{suffix}"
    pillow.fromarray(PIXELS).save(path, icc_profile=profile(), dpi=(300, 150))
    found = read_metadata(path)
    assert found.profile == profile()
    if suffix != "webp":
        assert found.density == pytest.approx((11811, 5906), rel=1e-3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_the_resolution_goes_from_format_to_format(tmp_path: Path, suffix: str) -> None:
    metadata = Metadata(density=(11811.0, 5906.0))
    for place in (tmp_path / f"a{suffix}", tmp_path / "b.png", tmp_path / "c.tif"):
        write_image(place, PIXELS, metadata=metadata)
        metadata = read_metadata(place)
        assert metadata.density == pytest.approx((11811, 5906), rel=1e-3)


def test_gamma_of_a_png_is_kept(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PIXELS, metadata=Metadata(gamma=45455))
    assert read_metadata(tmp_path / "a.png") == Metadata(gamma=45455)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)


def test_a_resolution_without_unit_is_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", resolution=(300, 300), resolutionunit=1)
    assert read_metadata(tmp_path / "a.tif").density is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cut_outs_carry_all(tmp_path: Path, dtype: type) -> None:
    image = np.dstack([PIXELS, PIXELS[..., 0]]).astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    kept = Metadata(profile(), (11811.0, 11811.0), 45455)
    write_image(tmp_path / "image.png", image, metadata=kept)
    found = decode(tmp_path / "image.png")
    assert found.metadata == kept
    np.testing.assert_array_equal(found.pixels, image)


def test_rgba_tiffs_carry_alpha_kind_and_profile(tmp_path: Path) -> None:
    image = np.dstack([PIXELS, PIXELS[..., 0]])
    for premultiplied, kind in ((False, 2), (True, 1)):
        path = tmp_path / "image.tif"
        kept = Metadata(profile(), (11811.0, 11811.0))
        write_image(path, image, metadata=kept, premultiplied=premultiplied)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert (page.extrasamples, page.iccprofile) == ((kind,), profile())
            np.testing.assert_array_equal(page.asarray(), image)
            assert [tag.code for tag in page.tags] == sorted({tag.code for tag in page.tags})
        np.testing.assert_array_equal(read_image(path), PIXELS)


def test_a_profile_that_the_encoder_refuses_is_left_out_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(ProfileWarning, match="damaged"):
        write_image(tmp_path / "image.png", PIXELS, metadata=Metadata(b"x" * 200))
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), PIXELS)


def test_colour_spaces() -> None:
    assert holds_rgb(profile())
    assert not holds_rgb(profile(space=b"GRAY"))


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def png_with_exif(content: bytes) -> bytes:
    encoded = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes()
    chunk = b"eXIf" + content
    chunk = struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return encoded[:33] + chunk + encoded[33:]


def webp_with_exif(content: bytes) -> bytes:
    encoded = cv2.imencode(".webp", PIXELS[..., ::-1])[1].tobytes()
    height, width = (side - 1 for side in PIXELS.shape[:2])
    head = bytes([8, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    chunks = [b"VP8X" + struct.pack("<I", 10) + head, encoded[12:]]
    chunks.append(b"EXIF" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("make", "prefix"), [(png_with_exif, b""), (webp_with_exif, b""), (webp_with_exif, b"Exif\0\0")]
)
def test_exif_is_applied_with_and_without_the_prefix_of_jpeg(
    tmp_path: Path, make: object, prefix: bytes
) -> None:
    assert callable(make)
    (tmp_path / "image").write_bytes(make(prefix + exif(6)))
    np.testing.assert_array_equal(read_image(tmp_path / "image"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("orientation", range(10))
def test_jpegs_are_turned_as_by_opencv(tmp_path: Path, orientation: int) -> None:
    jpeg = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    block = b"Exif\0\0" + exif(orientation)
    content = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    (tmp_path / "image.jpg").write_bytes(content)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg"), expected)
    alpha_too = decode(tmp_path / "image.jpg").pixels
    np.testing.assert_array_equal(alpha_too, expected)


@pytest.mark.parametrize("block", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0+" + b"\xff" * 40, b"text"])
def test_a_damaged_exif_block_is_none(tmp_path: Path, block: bytes) -> None:
    (tmp_path / "image.png").write_bytes(png_with_exif(block))
    found = decode(tmp_path / "image.png")
    assert found.orientation == 1
    np.testing.assert_array_equal(found.pixels, PIXELS)


def test_profiles_of_damaged_tiffs_are_none(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", PIXELS, metadata=Metadata(profile()))
    content = (tmp_path / "a.tif").read_bytes()
    start = content.rindex(profile())
    (tmp_path / "a.tif").write_bytes(content[: start + 100] + b"\0" * 100)
    from dim.images.metadata import of_tiff

    assert of_tiff(tmp_path / "a.tif") == Metadata()


def test_the_profile_of_another_librarys_jpeg_in_parts(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    pillow.fromarray(PIXELS).save(buffer, "jpeg", icc_profile=profile(200_000))
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_metadata(tmp_path / "a.jpg").profile == profile(200_000)


def test_a_profile_that_is_too_long_for_jpeg_is_left_out_with_a_warning(tmp_path: Path) -> None:
    large = profile() + bytes(255 * 65519)
    with pytest.warns(ProfileWarning, match="too many for JPEG"):
        write_image(tmp_path / "image.jpg", PIXELS, metadata=Metadata(large))
    assert read_metadata(tmp_path / "image.jpg").profile is None


def test_a_density_below_one_dot_per_inch_has_no_place_in_jpeg(tmp_path: Path) -> None:
    write_image(tmp_path / "image.jpg", PIXELS, metadata=Metadata(density=(10.0, 1000.0)))
    assert read_metadata(tmp_path / "image.jpg").density is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("side", [np.inf, np.nan, -5.0, 0.0])
def test_a_density_that_is_no_number_of_pixels_is_left_out(tmp_path: Path, suffix: str, side: float) -> None:
    write_image(tmp_path / f"image{suffix}", PIXELS, metadata=Metadata(density=(side, 3000.0)))
    assert read_metadata(tmp_path / f"image{suffix}").density is None


@pytest.mark.parametrize("orientation", [1, 4, 5, 8])
def test_the_density_turns_with_the_image(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, PIXELS, photometric="rgb", resolution=(300, 72), resolutionunit="inch",
        extratags=[(274, "H", 1, orientation, True)],
    )  # fmt: skip
    found = read_metadata(path).density
    across = (72, 300)[orientation < 5]
    assert found is not None
    assert found[0] == pytest.approx(across / 0.0254, rel=1e-3)


def test_a_damaged_resolution_leaves_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, PIXELS, photometric="rgb", iccprofile=profile(), metadata=None,
        extratags=[(282, "f", 1, 300.0, True), (283, "f", 1, 300.0, True)],
    )  # fmt: skip
    assert read_metadata(path) == Metadata(profile())
