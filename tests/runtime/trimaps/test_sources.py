"""What a trimap is made of: exactly one source, and each source gives its trimap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim.errors import InputError
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
    object_there = cv2.imread(str(files["mask"]), cv2.IMREAD_UNCHANGED) == 255
    sources = (
        TrimapSources(mask=files["mask"], inside=4, outside=6),
        TrimapSources(image=files["image"], box=Box(40, 20, 80, 80)),
    )
    for source in sources:
        made = source.make()
        assert set(np.unique(made)) == {0, 128, 255}
        assert object_there[made == 255].all()
        assert not object_there[made == 0].any()


def test_a_band_is_widened_afterwards(files: dict[str, Path]) -> None:
    unknown = [(TrimapSources(trimap=files["trimap"], band=band).make() == 128).sum() for band in (-2, 0, 3)]
    assert unknown == sorted(unknown)
    assert len(set(unknown)) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "nothing that separates"),
        (("trimap", "mask"), "trimap and mask"),
        (("mask", "mask_model"), "mask and mask model\n"),
        (("mask_model", "rembg"), "mask model and model of rembg"),
        (("strokes",), "of scribbles without the image"),
        (("mask_model",), "of mask model without the image"),
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
