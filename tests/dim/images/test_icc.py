"""ICC profiles: in, out, and through a run, in every format."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim.images.files import read_image, write_image
from dim.images.icc import JPEG_PART, embed, holds_rgb, read_profile

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 33, 3), np.uint8)


def profile(size: int = 588, space: bytes = b"RGB ") -> bytes:
    """Bytes that look like a profile where somebody looks."""
    body = np.random.default_rng(1).integers(0, 256, size - 132, np.uint8).tobytes()
    return size.to_bytes(4, "big") + b"\0" * 12 + space + b"\0" * 16 + b"acsp" + b"\0" * 92 + body


@pytest.mark.parametrize("size", [132, 589, 2 * JPEG_PART + 7])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_profile_is_read_back_and_the_pixels_stay(tmp_path: Path, suffix: str, size: int) -> None:
    plain = cv2.imencode(suffix, PIXELS)[1].tobytes()
    path = tmp_path / f"image{suffix}"
    path.write_bytes(plain)
    assert read_profile(path) is None
    expected = cv2.imread(str(path))
    path.write_bytes(embed(plain, profile(size)))
    assert read_profile(path) == profile(size)
    np.testing.assert_array_equal(cv2.imread(str(path)), expected)


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_WEBP_QUALITY, 90]], ids=["lossless", "lossy"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_another_library_finds_it(suffix: str, options: list[int]) -> None:
    pillow = pytest.importorskip("PIL.Image")
    encoded = cv2.imencode(suffix, PIXELS, options if suffix == ".webp" else [])[1].tobytes()
    with (
        pillow.open(io.BytesIO(embed(encoded, profile()))) as found,
        pillow.open(io.BytesIO(encoded)) as plain,
    ):
        assert found.info["icc_profile"] == profile()
        np.testing.assert_array_equal(np.asarray(found), np.asarray(plain))


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpeg", "webp"])
def test_another_librarys_files_are_read(tmp_path: Path, suffix: str) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / f"image.{suffix}"
    pillow.fromarray(PIXELS).save(path, icc_profile=profile())
    assert read_profile(path) == profile()


def test_rgba_tiffs_carry_alpha_kind_and_profile(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    image = np.dstack([PIXELS, PIXELS[..., 0]])
    for premultiplied, kind in ((False, 2), (True, 1)):
        path = tmp_path / "image.tif"
        write_image(path, image, profile=profile(), premultiplied=premultiplied)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert (page.extrasamples, page.iccprofile) == ((kind,), profile())
            np.testing.assert_array_equal(page.asarray(), image)
            assert [tag.code for tag in page.tags] == sorted(tag.code for tag in page.tags)
        np.testing.assert_array_equal(read_image(path), PIXELS)


def test_colour_spaces() -> None:
    assert holds_rgb(profile())
    assert not holds_rgb(profile(space=b"GRAY"))


def damaged() -> dict[str, bytes]:
    png, tiff = (cv2.imencode(suffix, PIXELS)[1].tobytes() for suffix in (".png", ".tif"))
    with_profile = embed(png, profile())
    return {
        "empty": b"",
        "text": b"some text that is no image",
        "PNG without end": png[:40],
        "PNG with a broken stream": with_profile.replace(zlib.compress(profile())[:20], b"\xff" * 20),
        "TIFF without its end": embed(tiff, profile())[:-40],
        "JPEG of two bytes": b"\xff\xd8",
        "WebP without chunks": b"RIFF\0\0\0\0WEBP",
        "a profile that is too short": embed(png, b"short"),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_have_no_profile(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(damaged()[name])
    assert read_profile(path) is None


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dim.images.icc.LARGEST", 1000)
    path = tmp_path / "image.png"
    path.write_bytes(embed(cv2.imencode(".png", PIXELS)[1].tobytes(), profile(5000)))
    found: Any = read_profile(path)
    assert len(found) == 1000
