"""The fields of the forms that requests carry."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Form, UploadFile

from dim_runtime.trimaps.sources import parse_box
from dim_runtime.trimaps.strokes import Box


class Format(StrEnum):
    """File format of a response. PNG and TIFF keep 16 bits; WebP and JPEG are for composites of 8 bits."""

    PNG = "png"
    TIFF = "tiff"
    WEBP = "webp"
    JPEG = "jpeg"


class Colours(StrEnum):
    """Colours of cut-outs and composites: estimated without the background, or the image's own."""

    ESTIMATED = "estimated"
    IMAGE = "image"


def _box(
    text: Annotated[str | None, Form(alias="box", description="x,y,width,height in pixels.")] = None,
) -> Box | None:
    return parse_box(text)


Trimap = Annotated[UploadFile | None, Form(description="0 background, 128 unknown, 255 foreground.")]
Mask = Annotated[
    UploadFile | None, Form(description="Light inside the object; or a cut-out with transparency.")
]
Scribbles = Annotated[
    UploadFile | None,
    Form(
        description="White foreground, black background, gray unknown, transparent where nothing is marked."
    ),
]
Band = Annotated[int, Form(ge=-200, le=200, description="Widens (or narrows) the unknown region, pixels.")]
Width = Annotated[
    int | None, Form(ge=0, le=500, description="Band of a mask; chosen from the mask if left out.")
]
Background = Annotated[str, Form(max_length=16, description="Of a composite: #RRGGBB.")]
BitDepth = Annotated[int | None, Form(description="Bits, 8 or 16; the image's if left out.")]


class Fields:
    """The fields of a form that mark what is known of the image."""

    def __init__(
        self,
        box: Annotated[Box | None, Depends(_box)],
        trimap: Trimap = None,
        mask: Mask = None,
        scribbles: Scribbles = None,
        inside: Width = None,
        outside: Width = None,
        band: Band = 0,
    ) -> None:
        self.box, self.trimap, self.mask, self.scribbles = box, trimap, mask, scribbles
        self.inside, self.outside, self.band = inside, outside, band


FormFields = Annotated[Fields, Depends()]
