"""From alpha to files: depths, profiles, backgrounds, what is refused, what the estimate is worth."""

from __future__ import annotations

import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim import bit_depth
from dim.errors import InputError
from dim.images.files import read_image, read_metadata, write_image
from dim.images.metadata import Metadata
from dim_runtime import Matting
from dim_runtime.cli import main
from dim_runtime.errors import MemoryLimitError, ProfileWarning
from dim_runtime.outputs import foreground
from dim_runtime.outputs.render import Enlarged, backdrop, kept_metadata, render, require_room, whole_bytes
from dim_runtime.outputs.spec import AlphaKind, Foreground, Output, OutputSpec

IMAGE = np.random.default_rng(0).integers(0, 65536, (40, 50, 3), np.uint16)
ALPHA = np.random.default_rng(1).random((40, 50)).astype(np.float32)


def profile(space: bytes) -> bytes:
    """Make an ICC profile, a header without tags, that encoders accept."""
    head = (588).to_bytes(4, "big") + b"\0\0\0\0\2\x10\0\0" + b"mntr" + space + b"XYZ " + b"\0" * 12 + b"acsp"
    return (head.ljust(68, b"\0") + b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d").ljust(
        132, b"\0"
    ) + np.random.default_rng(0).bytes(456)


RGB_PROFILE, GRAY_PROFILE = profile(b"RGB "), profile(b"GRAY")


@pytest.mark.parametrize("own", [8, 16])
@pytest.mark.parametrize("asked", [None, 8, 16])
@pytest.mark.parametrize("output", list(Output))
def test_every_depth_goes_to_every_depth(output: Output, asked: Any, own: Any) -> None:
    image = bit_depth.to_depth(IMAGE, own)
    spec = OutputSpec(output=output, foreground=Foreground.IMAGE, background="#FF8000", depth=asked)
    found = render(image, ALPHA, spec)
    wanted = asked or own
    assert found.dtype == (np.uint8 if wanted == 8 else np.uint16)
    scale = 2**wanted - 1
    exact, solid = image / (2**own - 1) * scale, ALPHA[..., None].astype(np.float64)
    if output is Output.ALPHA:
        expected = ALPHA * scale
    elif output is Output.CUTOUT:
        expected = np.dstack([exact, ALPHA * scale])
    else:
        expected = solid * exact + (1 - solid) * np.array([255, 128, 0]) / 255 * scale
    # Half a level from rounding once; an eighth more where 16 bits are rounded to 8.
    assert np.abs(found - expected).max() < 0.63


def test_premultiplied_colours_are_those_times_alpha() -> None:
    straight, times = (
        render(IMAGE, ALPHA, OutputSpec(output=Output.CUTOUT, foreground=Foreground.IMAGE, alpha=kind))
        for kind in AlphaKind
    )
    np.testing.assert_array_equal(straight[..., :3], IMAGE)
    np.testing.assert_array_equal(times[..., 3], straight[..., 3])
    assert np.abs(times[..., :3] - IMAGE * ALPHA[..., None].astype(np.float64)).max() < 0.51
    assert (times[..., :3] <= times[..., 3:]).all()


def test_estimated_colours_are_those_of_the_whole_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymatting")
    monkeypatch.setattr(foreground, "TILE", 32)
    monkeypatch.setattr(foreground, "OVERLAP", 8)
    expected = np.empty_like(IMAGE)
    for tile in foreground.tiles(*ALPHA.shape):
        seen = tile.outer_rows, tile.outer_columns
        expected[tile.rows, tile.columns] = foreground.tile_foreground(IMAGE[seen], ALPHA[seen], tile)
    found = render(IMAGE, ALPHA, OutputSpec(output=Output.CUTOUT))
    np.testing.assert_array_equal(found[..., :3], expected)
    assert (found[..., :3] != IMAGE).mean() > 0.5
    # 8 bits in, 16 out: the estimate itself is finer than its source.
    finer = render(bit_depth.eight_bits(IMAGE), ALPHA, OutputSpec(output=Output.CUTOUT, depth=16))
    assert (finer[..., :3] % 257 != 0).mean() > 0.5


@pytest.mark.parametrize("size", [(100, 90), (30, 100), (31, 41)])
def test_an_enlarged_background_is_that_of_the_resize(size: tuple[int, int]) -> None:
    small = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (30, 40, 3), np.uint8), (0, 0), 2)
    expected = foreground.covering(small, *size).astype(int)
    enlarged = Enlarged(small, *size)
    whole = enlarged[0 : size[0], 0 : size[1]]
    # The resize enlarges by whole pixels' numbers, which moves the far end by less than one source pixel.
    assert np.abs(whole - expected).mean() < 3
    rows, columns = slice(7, 25), slice(11, 30)
    np.testing.assert_array_equal(enlarged[rows, columns], whole[rows, columns])


def test_backdrops(tmp_path: Path) -> None:
    colour = backdrop(OutputSpec(output=Output.COMPOSITE, background="#010203"), 5, 6)
    assert colour[0:5, 0:6].tolist() == [[[1, 2, 3]] * 6] * 5
    cv2.imwrite(str(tmp_path / "large.png"), np.full((80, 90, 3), 9, np.uint8))
    image = backdrop(OutputSpec(output=Output.COMPOSITE, background=str(tmp_path / "large.png")), 5, 6)
    assert (image.shape, image[0:5, 0:6].min()) == ((5, 6, 3), 9)


def test_the_room_that_is_asked_for_counts_everything(tmp_path: Path) -> None:
    def minimum(spec: OutputSpec) -> int:
        with pytest.raises(MemoryLimitError) as refused:
            require_room(1, spec, held=5_000_000)
        return refused.value.minimum

    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((2000, 3000, 3), np.uint8))
    plain = minimum(OutputSpec(output=Output.COMPOSITE, foreground=Foreground.IMAGE))
    behind = minimum(
        OutputSpec(
            output=Output.COMPOSITE, foreground=Foreground.IMAGE, background=str(tmp_path / "large.png")
        )
    )
    estimated = minimum(OutputSpec(output=Output.COMPOSITE))
    assert behind - plain > 12 * 5_900_000
    assert estimated - plain > 250_000_000
    require_room(None, OutputSpec(), held=1 << 60)
    require_room(2 * estimated, OutputSpec(output=Output.COMPOSITE), held=5_000_000)
    assert whole_bytes(OutputSpec(depth=8), IMAGE) == 8 * 2000
    assert whole_bytes(OutputSpec(output=Output.CUTOUT), IMAGE) == 36 * 2000


def kept(path: Path, profile: bytes | None, spec: OutputSpec) -> bytes | None:
    return kept_metadata(path, Metadata(profile), spec).profile


def with_profile(path: Path, profile: bytes | None) -> Path:
    write_image(path, (IMAGE // 257).astype(np.uint8), metadata=Metadata(profile))
    return path


def test_profiles_are_kept_where_they_mean_something(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept(path, RGB_PROFILE, OutputSpec(output=Output.ALPHA)) is None
        assert kept(path, RGB_PROFILE, OutputSpec(output=Output.CUTOUT)) == RGB_PROFILE
        assert kept(path, RGB_PROFILE, OutputSpec(output=Output.COMPOSITE)) == RGB_PROFILE
        same = OutputSpec(
            output=Output.COMPOSITE, background=str(with_profile(tmp_path / "same.png", RGB_PROFILE))
        )
        assert kept(path, RGB_PROFILE, same) == RGB_PROFILE
    with pytest.warns(ProfileWarning, match="not one of RGB"):
        assert kept(path, GRAY_PROFILE, OutputSpec(output=Output.CUTOUT)) is None
    other = OutputSpec(output=Output.COMPOSITE, background=str(with_profile(tmp_path / "none.png", None)))
    with pytest.warns(ProfileWarning, match="another than the image's"):
        assert kept(path, RGB_PROFILE, other) == RGB_PROFILE


class Done:
    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text


@pytest.fixture
def run(
    identity: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """``dim-matte run`` with a back end that needs no model."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(Matting, "from_options", lambda *_: Matting.from_backend(identity))
        monkeypatch.setattr(sys, "argv", ["dim-matte", "run", *map(str, arguments)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
            main()
        code: Any = left.value.code
        return Done(code or 0, "".join(capsys.readouterr()))

    return call


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a 16-bit photograph with a profile, and its trimap."""
    image, trimap = tmp_path / "image.png", tmp_path / "trimap.png"
    write_image(image, IMAGE, metadata=Metadata(RGB_PROFILE, (11811.0, 11811.0)))
    levels = np.full((40, 50), 128, np.uint8)
    levels[:, :10], levels[:, 40:] = 0, 255
    cv2.imwrite(str(trimap), levels)
    return image, trimap


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_cutout_of_16_bits_keeps_bits_and_profile(
    run: Callable[..., Done], files: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"cut{suffix}"
    done = run(*files, "-o", out, "--out", "cutout", "--foreground", "image")
    assert done.code == 0, done.text
    stored = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored[..., :3], IMAGE[..., ::-1])
    assert (stored[:, :10, 3].max(), stored[:, 40:, 3].min()) == (0, 65535)
    assert read_metadata(out) == Metadata(RGB_PROFILE, pytest.approx((11811, 11811), rel=1e-3))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_composites_may_be_lossy(
    run: Callable[..., Done], files: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"composite{suffix}"
    options = ("--out", "composite", "--foreground", "image", "--background", "#20D040")
    assert run(*files, "-o", out, *options).code == 0
    found = read_image(out)
    assert found.dtype == np.uint8
    assert np.abs(found[:, :8].astype(int) - [0x20, 0xD0, 0x40]).mean() < 4
    assert read_metadata(out).profile == RGB_PROFILE


def test_an_orientation_turns_image_and_result(
    run: Callable[..., Done], files: tuple[Path, Path], tmp_path: Path
) -> None:
    jpeg = cv2.imencode(".jpg", (IMAGE // 257).astype(np.uint8).transpose(1, 0, 2)[::-1].copy())[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:])
    out = tmp_path / "cut.png"
    done = run(turned, files[1], "-o", out, "--out", "cutout", "--foreground", "image")
    assert done.code == 0, done.text
    assert cv2.imread(str(out), cv2.IMREAD_UNCHANGED).shape == (40, 50, 4)


REFUSED = {
    "cannot premultiply": ("--alpha", "premultiplied"),
    "cannot blend in linear light": ("--linear-light",),
    "suffix '.jpg'": ("-o", "alpha.jpg"),
    "16 bits": ("-o", "c.jpg", "--out", "composite", "--foreground", "image", "--depth", 16),
    "suffix '.webp'": ("-o", "c.webp", "--out", "cutout", "--foreground", "image"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_apply_is_refused(
    run: Callable[..., Done], files: tuple[Path, Path], tmp_path: Path, message: str
) -> None:
    options = [
        tmp_path / part if str(part).endswith((".jpg", ".webp")) else part for part in REFUSED[message]
    ]
    if "-o" not in options:
        options += ["-o", tmp_path / "out.png"]
    before = sorted(tmp_path.iterdir())
    done = run(*files, *options)
    assert done.code == 2
    assert message in done.text
    assert sorted(tmp_path.iterdir()) == before


def rgba_trimap(path: Path) -> None:
    cv2.imwrite(str(path), np.dstack([np.full((40, 50, 3), 128, np.uint8), np.zeros((40, 50), np.uint8)]))


def colour_trimap(path: Path) -> None:
    cv2.imwrite(str(path), np.dstack([np.full((40, 50), value, np.uint8) for value in (0, 128, 255)]))


def float_trimap(path: Path) -> None:
    path.write_bytes(cv2.imencode(".tif", np.full((40, 50), 0.5, np.float32))[1].tobytes())


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rgba_trimap, "alpha channel"),
        (colour_trimap, "colours"),
        (float_trimap, "float32"),
        (cut_off, "damaged"),
    ],
)
def test_wrong_trimaps_are_errors(
    run: Callable[..., Done],
    files: tuple[Path, Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(files[1])
    done = run(*files, "-o", tmp_path / "out.png")
    assert done.code == 2
    assert message in done.text
    assert not (tmp_path / "out.png").exists()


def test_a_background_that_is_missing_is_told_first(
    run: Callable[..., Done], files: tuple[Path, Path], tmp_path: Path, identity: Any
) -> None:
    options = ("--out", "composite", "--foreground", "image", "--background", tmp_path / "none.png")
    assert run(*files, "-o", tmp_path / "out.png", *options).code == 2
    assert not identity.shapes


def test_specs_know_their_background() -> None:
    assert OutputSpec(output=Output.COMPOSITE, background="a.png").background_file == Path("a.png")
    assert OutputSpec(output=Output.COMPOSITE, background="#112233").background_file is None
    assert OutputSpec(output=Output.CUTOUT, background="a.png").background_file is None
    with pytest.raises(InputError, match="RRGGBB"):
        OutputSpec(output=Output.COMPOSITE, foreground=Foreground.IMAGE, background="#12").check()
