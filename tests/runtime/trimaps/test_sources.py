"""What a trimap is made of: exactly one source, and each source gives its trimap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.errors import NothingKnownWarning
from dim_runtime.trimaps.mask_model import MaskModel
from dim_runtime.trimaps.sources import TrimapSources, parse_box
from dim_runtime.trimaps.strokes import Box

HEIGHT, WIDTH = 120, 160


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return a photograph of a disc, its trimap and its mask."""
    distance = np.hypot(*np.ogrid[-HEIGHT / 2 : HEIGHT / 2, -WIDTH / 2 : WIDTH / 2])
    made: dict[str, Any] = {
        "image": np.where(distance[..., None] < 30, (30, 120, 220), (160, 80, 30)).astype(np.uint8),
        "trimap": np.select([distance < 25, distance < 35], [255, 128], 0).astype(np.uint8),
        "mask": np.where(distance < 30, 255, 0).astype(np.uint8),
    }
    for name, array in made.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), array)
    return {name: tmp_path / f"{name}.png" for name in made}


def test_each_source_gives_its_trimap(files: dict[str, Path]) -> None:
    expected = cv2.imread(str(files["trimap"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(TrimapSources(trimap=files["trimap"]).make(), expected)
    object_there = np.asarray(cv2.imread(str(files["mask"]), cv2.IMREAD_UNCHANGED)) == 255
    sources = (
        TrimapSources(mask=files["mask"], inside=4, outside=6),
        TrimapSources(image=files["image"], box=Box(40, 20, 80, 80)),
    )
    for source in sources:
        made = source.make()
        assert set(np.unique(made)) == {0, 128, 255}
        assert object_there[made == 255].all()
        assert not object_there[made == 0].any()


def test_grabcut_corrects_a_networks_mask_unless_a_width_is_given(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = np.asarray(cv2.imread(str(files["mask"]), cv2.IMREAD_UNCHANGED)) == 255
    half = there & (np.arange(WIDTH) < WIDTH // 2)
    mask = np.where(half, 255, np.where(there, 100, 0)).astype(np.uint8)
    monkeypatch.setattr(MaskModel, "__init__", lambda self, path, layout: None)
    monkeypatch.setattr(MaskModel, "mask", lambda self, image: mask)
    corrected = TrimapSources(image=files["image"], mask_model=Path("model.onnx")).make()
    assert there[corrected == 255].all()
    assert not there[corrected == 0].any()
    taken = TrimapSources(image=files["image"], mask_model=Path("model.onnx"), inside=2, outside=2).make()
    assert half[taken == 255].all()
    assert not half[taken == 0].any()
    assert (taken[there & ~half] == 128).all(), "levels between stay unknown"


def test_widths_are_of_the_border_of_a_mask(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"inside or outside with box\n(.*\n)*  fix: leave the widths out"):
        TrimapSources(image=files["image"], box=Box(40, 20, 80, 80), inside=3).make()
    with pytest.raises(InputError, match="inside or outside with trimap"):
        TrimapSources(trimap=files["trimap"], outside=3).make()


def test_a_band_is_widened_afterwards(files: dict[str, Path]) -> None:
    unknown = [(TrimapSources(trimap=files["trimap"], band=band).make() == 128).sum() for band in (-2, 0, 3)]
    assert unknown == sorted(unknown)
    assert len(set(unknown)) == 3


def test_a_trimap_of_marks_is_narrowed_by_one_pass(files: dict[str, Path]) -> None:
    backend = FakeBackend(alpha=lambda image, trimap: (image[..., 0] > 128).astype(np.float64))
    marks = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    cv2.circle(marks, (80, 60), 5, (255, 255, 255, 255), -1)
    cv2.line(marks, (5, 5), (155, 5), (0, 0, 0, 255), 3)
    cv2.line(marks, (80, 84), (80, 88), (128, 128, 128, 255), 1)
    scribbles = files["image"].with_name("scribbles.png")
    cv2.imwrite(str(scribbles), marks)
    sources = TrimapSources(image=files["image"], strokes=scribbles)
    made = sources.make()
    refined = sources.refined(made, Matting.from_backend(backend))
    assert len(backend.shapes) == 1
    assert 0 < (refined == 128).sum() < (made == 128).sum()
    np.testing.assert_array_equal(refined[made != 128], made[made != 128])
    assert (refined[84:89, 80] == 128).all(), "strokes are kept"


@pytest.mark.parametrize("given", [{"mask": True}, {"trimap": True}, {"box": Box(40, 20, 80, 80)}])
def test_other_trimaps_are_not_narrowed(files: dict[str, Path], given: dict[str, Any]) -> None:
    given = {name: files[name] if value is True else value for name, value in given.items()}
    sources = TrimapSources(image=files["image"], **given)
    made = sources.make()
    backend = FakeBackend()
    np.testing.assert_array_equal(sources.refined(made, Matting.from_backend(backend)), made)
    assert not backend.shapes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "nothing that separates"),
        (("trimap", "mask"), "trimap and mask"),
        (("mask", "mask_model"), "mask and mask model\n"),
        (("mask_model", "rembg"), "mask model and model of rembg"),
        (("strokes",), "of scribbles without the image"),
        (("mask_model",), "of mask model without the image"),
        (("box", "mask_model", "strokes"), "scribbles and box and mask model"),
        (("box", "mask"), "box may come with scribbles or mask model or model of rembg"),
    ],
)
def test_one_source_and_its_image_are_needed(given: tuple[str, ...], message: str) -> None:
    sources = TrimapSources(**{name: "u2net" if name == "rembg" else Path(name) for name in given})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        sources.make()


def test_the_files_that_are_read() -> None:
    sources = TrimapSources(image=Path("i"), strokes=Path("s"), box=Box(0, 0, 1, 1))
    assert sources.inputs == [Path("i"), Path("s")]
    sources.require_one()


def test_boxes() -> None:
    assert parse_box(" 120, 80,400,500") == Box(120, 80, 400, 500)
    assert parse_box(None) is None
    assert parse_box("") is None
    for text in ("1,2,3", "1,2,3,4,5", "-1,2,3,4", "1.5,2,3,4", "²,2,3,4", "1234567890,2,3,4", "a"):
        with pytest.raises(InputError, match="x,y,width,height"):
            parse_box(text)


def test_a_band_that_leaves_nothing_known_is_a_warning(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with pytest.warns(NothingKnownWarning, match="is a guess"):
        made = TrimapSources(mask=tmp_path / "mask.png", inside=50, outside=50).make()
    assert (made == 128).all()
