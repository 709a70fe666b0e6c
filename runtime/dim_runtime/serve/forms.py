"""The fields of the forms that requests carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Form, Request, Response, UploadFile
from fastapi.routing import APIRoute

from dim.errors import InputError
from dim_runtime.trimaps.sources import parse_box
from dim_runtime.trimaps.strokes import Box

SOURCE_FIELDS = ("image", "trimap", "mask", "scribbles", "box", "inside", "outside", "band")
"""Fields of every form."""
MAX_FILES, MAX_TEXTS = 8, 32
"""Parts of a form: twice as many as any route has, so that errors can name what is too much."""
MAX_TEXT_BYTES = 1 << 16
"""Bytes of a part that is no file: these stay in memory."""


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
Identity = Annotated[
    str | None,
    Form(
        pattern="^[0-9a-f]{32}$",
        description="Of the job, 32 random hexadecimal digits: the client can end it before any response. "
        "Chosen by the server if left out.",
    ),
]
Band = Annotated[int, Form(ge=-200, le=200, description="Widens (or narrows) the unknown region, pixels.")]
Width = Annotated[
    int | None, Form(ge=0, le=500, description="Band of a mask; chosen from the mask if left out.")
]
Background = Annotated[
    str | None, Form(max_length=16, description="Of a composite: #RRGGBB or #RGB; #FFFFFF if left out.")
]
Foregrounds = Annotated[
    Colours | None,
    Form(description="Colours of cut-outs and composites; estimated if left out."),
]
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


def only(*fields: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that raises InputError for other fields, a field that comes twice, or a query.

    A misspelt field would otherwise be ignored, and its default used; of two the last would be taken.
    """

    async def require_known(request: Request) -> None:
        if request.query_params:
            raise InputError(
                "cannot use parameters in the address",
                got=", ".join(request.query_params),
                expected="fields of a form",
            )
        form = await request.form()
        for name in form:
            if name not in fields:
                near = get_close_matches(name, fields, n=1, cutoff=0.5)
                raise InputError(
                    f"cannot use the field {name[:80]!r}",
                    expected=", ".join(fields),
                    fix=f"write {near[0]}" if near else None,
                )
            count = len(form.getlist(name))
            if count > 1:
                raise InputError(
                    f"cannot use the field {name!r}", got=f"{count} of it", expected="one of each field"
                )

    return require_known


class FormRoute(APIRoute):
    """A route whose forms have few parts: up to a megabyte of each part stays in memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_few_parts(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_few_parts


class _Request(Request):
    # Only the newest FastAPI has limits of forms as an option.
    def form(self, **_: Any) -> Any:
        kind = self.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/form-data"):
            raise InputError(
                "cannot read the body of this request",
                got=kind[:80] or "no Content-Type",
                expected="a form with files: multipart/form-data",
                fix="send files as files: curl -F image=@photo.jpg",
            )
        return super().form(max_files=MAX_FILES, max_fields=MAX_TEXTS, max_part_size=MAX_TEXT_BYTES)
