"""Errors as responses: their status, their four parts as JSON, and nothing of the server's files."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match, Route

from dim.errors import DimError, InputError
from dim_runtime.errors import MemoryLimitError
from dim_runtime.serve.folders import FOLDER_PREFIX
from dim_runtime.serve.limits import (
    BusyError,
    CrowdedError,
    RemovedJobError,
    SlowBodyError,
    StoppingError,
    StorageError,
    TimeLimitError,
    TooLargeError,
    UnauthorisedError,
    UnknownHostError,
    UnknownJobError,
    no_storage,
)

log = logging.getLogger(__name__)

STATUS: Mapping[type[Exception], int] = {
    StoppingError: 503,
    StorageError: 507,
    BusyError: 429,
    TimeLimitError: 503,
    RemovedJobError: 410,
    SlowBodyError: 408,
    UnknownHostError: 400,
    UnknownJobError: 404,
    UnauthorisedError: 401,
    TooLargeError: 413,
    MemoryLimitError: 413,
    InputError: 422,
}
"""The status of an error, by the first type that fits; 500 for every other."""


class Problem(BaseModel):
    """An error of the interface, in up to four parts."""

    problem: str
    got: str | None = Field(None, description="What was found.")
    expected: str | None = Field(None, description="What is accepted.")
    why: str | None = Field(None, description="The reason.")
    fix: str | None = Field(None, description="What to change.")


DESCRIPTIONS: Mapping[int, str] = {
    400: "Another host name; no form, or a form with too many or too long parts.",
    401: "The server requires another token.",
    404: "No such path or job.",
    405: "A method that the path does not have.",
    408: "The body arrived too slowly.",
    410: "The job was removed.",
    413: "Too many bytes or pixels.",
    422: "Wrong fields or files.",
    429: "The queue is full, or too many bytes arrive at once; Retry-After gives seconds.",
    500: "A fault of the server.",
    503: "The server is stopping, or the request took too long.",
    507: "The server has no space for files; Retry-After gives seconds.",
}
"""Reasons of the statuses that are errors."""
RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": text} for status, text in DESCRIPTIONS.items()
}
"""The same for the OpenAPI description of every route."""


def upload_path() -> re.Pattern[str]:
    """Return the pattern of an upload's path, with the word before it.

    Clients get the names of their fields, not paths of the server.
    """
    folder = re.escape(os.path.join(tempfile.gettempdir(), FOLDER_PREFIX))
    return re.compile(rf"(?:\b(\w+) )?{folder}[^/\\]+[/\\][^/\\]+[/\\](\w+)")


def _field(found: re.Match[str]) -> str:
    """Return the field's name once: “the mask /tmp/…/mask” is “the mask”."""
    word, name = found.groups()
    return name if word in (None, name) else f"{word} {name}"


def describe(error: BaseException) -> dict[str, str]:
    """Return an error in its four parts; one that is not the toolkit's gives away nothing but its kind."""
    if not isinstance(error, DimError):
        return {"problem": "the server failed", "why": type(error).__name__}
    parts = {name: getattr(error, name) for name in ("problem", "got", "expected", "why", "fix")}
    path = upload_path()
    return {name: path.sub(_field, str(value)) for name, value in parts.items() if value is not None}


def error_response(error: BaseException) -> JSONResponse:
    """Return the response to a request that failed."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status in (500, 507):
        log.error("a request failed", exc_info=error)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, SlowBodyError | TooLargeError | CrowdedError):
        # The rest of the body is not read: the connection cannot be used again.
        headers["Connection"] = "close"
    return JSONResponse(describe(error), status, headers)


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes of a path; GET and HEAD for the page's files, which have no route."""
    found = [
        route.methods or ()
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    return set().union(*found) or {"GET", "HEAD"}


def _parts(request: Request, error: StarletteHTTPException, allowed: str | None) -> dict[str, str]:
    """Return an error of the protocol in its parts."""
    if allowed is not None:
        return {"problem": "cannot use this method here", "got": request.method[:20], "expected": allowed}
    if error.status_code == 404:
        return {
            "problem": "cannot find this path",
            "got": request.url.path[:80],
            "fix": "/openapi.json lists the paths",
        }
    return {
        "problem": "cannot read this request",
        "got": str(error.detail),
        "expected": "multipart/form-data",
    }


def add_errors(app: FastAPI) -> None:
    """Let every error of a route become a response in four parts."""

    @app.exception_handler(DimError)
    async def ours(_: Request, error: Exception) -> Response:
        return error_response(error)

    @app.exception_handler(StarletteHTTPException)
    async def protocol(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        # FastAPI hides what the guard raises while a form is read behind a 400.
        if isinstance(error.__cause__, DimError):
            return error_response(error.__cause__)
        if isinstance(error.__cause__, OSError):
            return error_response(no_storage(error.__cause__))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return JSONResponse(_parts(request, error, headers.get("Allow")), error.status_code, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        reasons = [(".".join(map(str, each["loc"][1:])), each["msg"]) for each in error.errors()]
        texts = any("UploadFile" in reason for _, reason in reasons)
        found = "; ".join(
            f"{field}: {'a text in place of a file' if 'UploadFile' in reason else reason}"
            for field, reason in reasons
        )
        return error_response(
            InputError(
                "cannot use the fields of this request",
                got=found,
                expected="a form (multipart/form-data); /openapi.json describes its fields",
                fix="send files as files: curl -F image=@photo.jpg" if texts else None,
            )
        )

    @app.exception_handler(OSError)
    async def unwritten(_: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        return error_response(no_storage(error))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(error)
